// SPDX-License-Identifier: GPL-2.0-or-later
// Mounted GFS2 and what holds for its locks, from files as the kernel writes them.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "graced/node_view.hh"

#include "kernel_loop.hh"

#include <doctest/doctest.h>
#include <filesystem>
#include <fstream>

using namespace grace;

namespace {

struct node {
    testing::temporary_directory dir;
    void write(const std::string& path, const std::string& text) {
        const std::filesystem::path file = dir.path + path;
        std::filesystem::create_directories(file.parent_path());
        std::ofstream(file) << text;
    }
    std::vector<gfs2_mount> mounts() { return gfs2_mounts(dir.path); }
};

} // namespace

TEST_CASE_FIXTURE(node, "gated, ungated by UUID in any case, private, open") {
    CHECK(mounts().empty());
    write("/proc/self/mountinfo",
          "22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n"
          "30 22 8:16 / /srv/data rw,noatime shared:7 - gfs2 /dev/sdb rw\n"
          "31 22 8:32 / /srv/two\\040words rw - gfs2 /dev/sdc rw,quota=off\n"
          "32 22 8:48 / /srv/own rw master:3 shared:9 - gfs2 /dev/sdd rw,localflocks\n"
          "33 22 8:64 / /srv/one rw - gfs2 /dev/sde rw,lockproto=lock_nolock\n"
          "34 22 8:80 / /srv/other rw - ext4 /dev/sdf rw,localflocks\n"
          "broken\n");
    write("/sys/fs/gfs2/c:data/id", "8:16\n");
    write("/sys/fs/gfs2/c:data/uuid", "6be7c1ee-0a8f-4b8e-8a3c-1d6a6a3f0001\n");
    write("/sys/fs/gfs2/c:two/id", "8:32\n");
    write("/sys/fs/gfs2/c:two/uuid", "6be7c1ee-0a8f-4b8e-8a3c-1d6a6a3f0002\n");
    REQUIRE(mounts().size() == 4);
    CHECK(mounts()[0].gate == "open");

    write("/sys/module/gfs2_gate/parameters/ungated", "6BE7C1EE-0A8F-4B8E-8A3C-1D6A6A3F0002\n");
    const auto all = mounts();
    CHECK(all[0].path == "/srv/data");
    CHECK(all[0].device == "8:16");
    CHECK(all[0].uuid == "6be7c1ee-0a8f-4b8e-8a3c-1d6a6a3f0001");
    CHECK(all[0].gate == "gated");
    CHECK(all[1].path == "/srv/two words");
    CHECK(all[1].gate == "ungated");
    CHECK(all[2].gate == "private");
    CHECK(all[3].gate == "private");
}

TEST_CASE("nobody can say who runs graced without corosync") {
    CHECK_FALSE(graced_elsewhere(""));
    CHECK_FALSE(graced_elsewhere(std::string(1000, 'x')));
}
