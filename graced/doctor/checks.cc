// SPDX-License-Identifier: GPL-2.0-or-later
// What is wrong with a node, or between nodes, by their facts. Each check is a function of its own;
// a fact that is missing makes it say that it has not checked, never that all is well.
#include "graced/doctor/doctor.hh"

#include <algorithm>
#include <cmath>
#include <map>
#include <regex>
#include <set>

namespace grace::doctor {
namespace {

// --- reading facts, which another version may have written ---

const json& at(const json& j, const std::string& path) {
    static const json nothing;
    const json* here = &j;
    std::size_t begin = 0;
    while (begin <= path.size()) {
        const std::size_t end = std::min(path.find('.', begin), path.size());
        const std::string key = path.substr(begin, end - begin);
        if (!here->is_object() || !here->contains(key))
            return nothing;
        here = &(*here)[key];
        begin = end + 1;
    }
    return *here;
}

std::string text(const json& j, const std::string& path, const std::string& otherwise = "") {
    const json& v = at(j, path);
    return v.is_string() ? v.get<std::string>() : otherwise;
}

double number(const json& j, const std::string& path, double otherwise) {
    const json& v = at(j, path);
    return v.is_number() ? v.get<double>() : otherwise;
}

bool is(const json& j, const std::string& path, bool value) {
    const json& v = at(j, path);
    return v.is_boolean() && v.get<bool>() == value;
}

std::string shown(double n) {
    const double whole = std::round(n);
    return json(static_cast<std::int64_t>(whole)).dump();
}

std::string joined(const std::vector<std::string>& all, const char* between = ", ") {
    std::string out;
    for (const std::string& one : all)
        out += (out.empty() ? "" : between) + one;
    return out;
}

std::string name_of(const json& facts) {
    return text(facts, "node", text(facts, "host", "?"));
}

bool in_cluster(const json& facts) {
    return text(facts, "config.graced.state") == "cluster";
}

// --- writing down, for one check ---

class paper {
public:
    paper(const char* check, const json& facts, report& r)
        : check_(check)
        , node_(name_of(facts))
        , report_(r) {}
    void wrong(std::string what, std::string remedy) {
        add(false, std::move(what), std::move(remedy));
    }
    void advice(std::string what, std::string remedy) {
        add(true, std::move(what), std::move(remedy));
    }
    void not_checked(std::string why) {
        report_.not_checked.push_back({check_, node_, std::move(why)});
    }

private:
    void add(bool advice, std::string what, std::string remedy) {
        report_.findings.push_back({check_, node_, advice, std::move(what), std::move(remedy)});
    }
    const char* check_;
    std::string node_;
    report& report_;
};

constexpr const char* no_config = "graced.conf cannot be read";
constexpr const char* no_daemon = "graced does not answer";

// --- one node ---

void configuration(const json& f, report& r) {
    paper p("configuration", f, r);
    for (const json& e : at(f, "config_errors"))
        p.wrong(e.is_string() ? e.get<std::string>() : e.dump(),
                "gracectl config check says no more than this: mend the file");
    for (const json& w : at(f, "config.warnings")) {
        const std::string said = w.is_string() ? w.get<std::string>() : w.dump();
        // Checks of their own say these, and what to do.
        if (said.find(" exports: ") == std::string::npos &&
            said.find(" grace_time: ") == std::string::npos)
            p.advice(said, "graced.conf(5)");
    }
}

void running(const json& f, report& r) {
    paper p("daemon", f, r);
    const json& s = at(f, "status");
    if (!s.is_object())
        return p.wrong("graced does not answer" +
                           (text(f, "status_error").empty() ? "" : ": " + text(f, "status_error")),
                       "systemctl start graced; journalctl -u graced says why it ended, "
                       "troubleshooting.md what its exit code means");
    if (is(s, "quorate", false))
        p.wrong("this node has no quorum: its gate is closed",
                "corosync-quorumtool -s; the other nodes, the network between them");
    else if (is(s, "synced", false))
        p.wrong("graced has not joined the others: the gate of this node is closed",
                "gracectl status names what it waits for");
    if (is(s, "kernel.bypass", true))
        p.wrong("the gate is bypassed: no lock is held back here", "gracectl bypass off");
    if (text(f, "version") != text(s, "version", text(f, "version")))
        p.advice("gracectl is " + text(f, "version") + ", the daemon " + text(s, "version"),
                 "an update has not been finished: systemctl restart graced (upgrade.md)");
    for (const json& w : at(s, "warnings")) {
        const std::string said = w.is_string() ? w.get<std::string>() : w.dump();
        if (said.rfind("corosync.conf has ", 0) != 0) // check `quorum`
            p.advice(said, "troubleshooting.md");
    }
}

// A node that joins the cluster without its daemon holds up every reclaim.
void at_boot(const json& f, report& r) {
    paper p("boot", f, r);
    if (is(f, "enabled", false))
        p.advice("graced.service is not enabled: a node that joins the cluster and has not "
                 "attached its gate since it "
                 "booted holds up every reclaim",
                 "systemctl enable graced-dlm graced");
}

bool wants_gate(const json& f) {
    return text(f, "config.gate.backend", "module") == "module";
}

void modules_loaded(const json& f, report& r) {
    paper p("modules", f, r);
    if (!wants_gate(f))
        return;
    std::vector<std::string> missing;
    for (const char* name : {"lockd_shim", "gfs2_gate"})
        if (is(f, std::string("modules.") + name + ".loaded", false))
            missing.push_back(name);
    if (!missing.empty())
        p.wrong(joined(missing, " and ") + (missing.size() == 1 ? " is" : " are") +
                    " not loaded: this node has no gate, and no reclaim of the cluster opens while "
                    "it is a member",
                "modprobe -a lockd_shim gfs2_gate; if that fails: dkms status has to list "
                "graced-modules as installed for kernel " +
                    text(f, "kernel", "uname -r") + " (install.md)");
    else if (is(f, "status.kernel.attached", false))
        p.wrong("the modules are loaded, and the gate is not attached", "gracectl status says why");
}

void gfs2_gated(const json& f, report& r) {
    paper p("gfs2", f, r);
    const bool gate = is(f, "modules.gfs2_gate.loaded", true);
    for (const json& m : at(f, "mounts")) {
        const std::string path = text(m, "path"), how = text(m, "gate");
        if (how == "open")
            p.wrong("GFS2 " + path +
                        " is mounted and gfs2_gate is not loaded: programs get locks that NFS "
                        "clients are about to reclaim",
                    "umount " + path + ", modprobe -a lockd_shim gfs2_gate, and mount it again");
        else if (how == "private")
            p.wrong("GFS2 " + path +
                        " is mounted with localflocks (or lock_nolock): its locks hold on this "
                        "node only, and no gate can help",
                    "mount it without that option, on every node");
        else if (how == "ungated")
            p.advice("GFS2 " + path + " is left alone by gfs2_gate's parameter `ungated`",
                     "if its files are exported or locked on two nodes, take it off that list");
    }
    for (const json& m : at(f, "fstab"))
        if (std::regex_search(text(m, "options"),
                              std::regex("(^|,)(localflocks|lockproto=lock_nolock)(,|$)")))
            p.wrong("fstab mounts GFS2 " + text(m, "path") + " with " + text(m, "options") +
                        ": locks that hold on one node only",
                    "take that option out of /etc/fstab, on every node");
    if (!wants_gate(f))
        return;
    if (!gate && at(f, "mounts").empty() && is(f, "modules.gfs2.loaded", true))
        p.wrong(
            "gfs2 is loaded and gfs2_gate is not: a GFS2 that is mounted now would have no gate",
            "modprobe -r gfs2, or modprobe -a lockd_shim gfs2_gate");
    if (is(f, "gate_before_gfs2", false))
        p.wrong("nothing keeps gfs2 from being loaded where gfs2_gate is missing: a GFS2 could be "
                "mounted without a gate",
                "install /usr/lib/modprobe.d/graced.conf again (cmake --install), and no file of "
                "that name in /etc/modprobe.d that hides it");
}

void without_gfs2(const json& f, report& r) {
    paper p("nodes_without_gfs2", f, r);
    const json& self = at(f, "status.node.id");
    const json& list = at(f, "config.grace.nodes_without_gfs2");
    if (self.is_null() || !list.is_array())
        return p.not_checked(self.is_null() ? no_daemon : no_config);
    const bool named = std::find(list.begin(), list.end(), self) != list.end();
    if (named && !at(f, "mounts").empty())
        p.wrong("this node is named in nodes_without_gfs2 and has a GFS2 mounted: graces do not "
                "wait for its gate",
                "unmount the GFS2, or take node " + self.dump() +
                    " off nodes_without_gfs2 on all nodes");
    if (text(f, "config.gate.backend") == "none" && !named && in_cluster(f))
        p.wrong(
            "gate.backend = none, and nodes_without_gfs2 does not name this node: no reclaim opens",
            "name node " + self.dump() + " in nodes_without_gfs2 on all nodes");
}

void other_tracker(const json& f, report& r) {
    paper p("nfsdcld", f, r);
    if (is(f, "nfsdcld.runs", true))
        p.wrong("nfsdcld runs: it takes upcalls that are graced's, and clients are missing from "
                "the record",
                "systemctl mask --now nfsdcld");
    else if (is(f, "nfsdcld.there", true) && is(f, "nfsdcld.masked", false))
        p.wrong("nfsdcld is not masked: nfs-server.service starts it",
                "systemctl mask --now nfsdcld");
}

const char* const fencing_remedy =
    "configure a power switch for each node, and try it (install.md, pacemaker.md)";

void fencing(const json& f, report& r) {
    paper p("fencing", f, r);
    if (!in_cluster(f) || text(f, "config.locks.backend") != "dlm")
        return;
    const json& cib = at(f, "cib");
    const json& dlm = at(f, "dlm");
    if (is(dlm, "plocks", false))
        p.wrong("dlm.conf says enable_plock=0: POSIX locks do not reach the other nodes",
                "take it out of /etc/dlm/dlm.conf, on every node");
    if (is(dlm, "fencing", false))
        p.wrong("dlm.conf says enable_fencing=0: DLM goes on without proof that a dead node is off",
                "take it out of /etc/dlm/dlm.conf, on every node");
    if (cib.is_object()) {
        if (is(cib, "stonith", false))
            p.wrong("Pacemaker's stonith-enabled is false: a node that is dead to the others may "
                    "still write and hold locks",
                    "pcs property set stonith-enabled=true");
        std::size_t switches = 0;
        std::string grace;
        for (const auto& [id, agent] : at(cib, "agents").items())
            if (agent == "fence_graced")
                grace = id;
            else
                switches++;
        if (switches == 0)
            p.wrong("Pacemaker has no fence device that powers a node off", fencing_remedy);
        bool second = false;
        for (const json& level : at(cib, "levels"))
            second |= level.size() > 1 && level.front() != grace &&
                      std::find(level.begin(), level.end(), grace) != level.end();
        if (!grace.empty() && !second)
            p.wrong("the fence device " + grace +
                        " (fence_graced) stands in no topology level behind a device that powers "
                        "off: alone it refuses",
                    "pcs stonith level add 1 NODE POWER " + grace +
                        ", for each node (pacemaker.md)");
        return;
    }
    if (dlm.is_null())
        return p.wrong("there is no fencing: no /etc/dlm/dlm.conf, and no Pacemaker",
                       fencing_remedy);
    const auto powers_off = [](const json& agents) {
        return std::any_of(agents.begin(), agents.end(),
                           [](const json& a) { return a != "fence_graced"; });
    };
    if (powers_off(at(dlm, "all")))
        return;
    const json& nodes = at(f, "corosync.nodes");
    if (at(dlm, "nodes").empty())
        return p.wrong("dlm.conf names no fence device for any node", fencing_remedy);
    if (!nodes.is_array() || nodes.empty())
        return p.not_checked("corosync.conf names no nodes");
    for (const json& n : nodes) {
        const std::string id = at(n, "id").dump();
        const json& devices = at(dlm, "nodes." + id);
        if (!powers_off(devices))
            p.wrong("dlm.conf has no device that powers off node " + id + " (" +
                        text(n, "name", "?") + ")",
                    std::string(fencing_remedy));
    }
}

void quorum(const json& f, report& r) {
    paper p("quorum", f, r);
    if (!in_cluster(f))
        return;
    const json& c = at(f, "corosync");
    if (c.is_null())
        return p.not_checked("there is no corosync.conf, and corosync does not run");
    if (is(c, "running", false))
        p.wrong("corosync does not run on this node", "systemctl start corosync");
    if (is(c, "two_node", true) && is(c, "wait_for_all", false))
        p.wrong("two_node without wait_for_all: a node that comes up alone is quorate, and may go "
                "on from an old database",
                "take `wait_for_all: 0` out of corosync.conf, on both nodes");
    if (is(c, "last_man_standing", true))
        p.wrong("last_man_standing: a minority that shrank step by step stays quorate",
                "take it out of corosync.conf, on every node");
}

void permit(const json& f, report& r) {
    paper p("permit", f, r);
    if (!in_cluster(f))
        return;
    const double token = number(f, "corosync.token", 0);
    if (token == 0)
        return p.not_checked("the token timeout is not known: corosync does not run, and "
                             "corosync.conf does not say");
    const double ttl = number(f, "config.permit.ttl", token * 0.8); // auto
    const double beat = number(f, "config.permit.heartbeat", ttl / 6);
    if (ttl > token * 0.9)
        p.wrong("permit.ttl is " + shown(ttl) + " ms, the token timeout " + shown(token) +
                    " ms: a gate could be open when the others have dropped this node",
                "leave ttl at auto, or set totem.token to " + shown(ttl / 0.8) + " at least");
    if (beat * 2 > ttl)
        p.wrong("permit.heartbeat is " + shown(beat) +
                    " ms, more than half of ttl: gates close whenever a message is late",
                "leave heartbeat at auto");
    if (token < 1000)
        p.advice("the token timeout is " + shown(token) +
                     " ms: a node that stands still for a moment is fenced",
                 "totem.token: 3000, unless the network and the nodes are known to keep less");
}

constexpr double kernel_lease = 90; // fs/nfsd/nfssvc.c: nfsd4_lease

void times(const json& f, report& r) {
    paper p("times", f, r);
    const double period = number(f, "config.grace.period", 0);
    if (period == 0)
        return p.not_checked(no_config);
    for (const auto& [name, s] : at(f, "config.server").items()) {
        const double lease = number(s, "lease_time", kernel_lease);
        if (lease > period)
            p.wrong("server " + name + ": its lease is " + shown(lease) + " s, [grace] period " +
                        shown(period) +
                        " s: a client that is quiet for a lease finds out about the restart when "
                        "the grace is over",
                    "[grace] period of at least " + shown(lease) +
                        ", on all nodes, or a shorter lease_time");
        const double grace = number(s, "grace_time", 0);
        if (grace != 0 && grace < 2 * period)
            p.wrong("server " + name + ": grace_time is " + shown(grace) + " s, a grace may last " +
                        shown(2 * period) + ": nfsd forgets who may reclaim before that",
                    "leave grace_time at auto with a period of 1800 at most, or set at least " +
                        shown(2 * period));
    }
    const double dropin = number(f, "dropin_grace_time", 0);
    if (dropin != 0 && dropin < 2 * period)
        p.wrong("the drop-in of nfs-server.service sets nfsv4gracetime to " + shown(dropin) +
                    " s, a grace may last " + shown(2 * period),
                "in /etc/systemd/system/nfs-server.service.d/graced.conf: at least " +
                    shown(2 * period));
}

std::set<std::string> hosted_here(const json& f) {
    std::set<std::string> names;
    for (const json& s : at(f, "status.servers"))
        if (!at(s, "host").is_null() && at(s, "host") == at(f, "status.node.id"))
            names.insert(text(s, "name"));
    return names;
}

// Clients know a server by its scope: the host name with which its nfsd was started.
void scope(const json& f, report& r) {
    paper p("scope", f, r);
    std::set<std::string> made; // by graced-server
    for (const json& s : at(f, "servers_here")) {
        const std::string name = text(s, "name");
        made.insert(name);
        if (!text(s, "scope").empty() && text(s, "scope") != name)
            p.wrong("server " + name + " runs with the host name " + text(s, "scope") +
                        ": its clients see another server and do not reclaim",
                    "graced-server stop " + name + ", graced-server start " + name);
    }
    for (const std::string& name : hosted_here(f))
        if (!made.contains(name) && name != text(f, "host"))
            p.wrong("server " + name + " is the node's own nfsd, whose scope is the node's name, " +
                        text(f, "host") +
                        ": after a move or with another name its clients do not reclaim",
                    "define [server." + name +
                        "] and start it with graced-server; the drop-in of nfs-server.service is "
                        "for a server that is called as the node");
}

void exports(const json& f, report& r) {
    paper p("exports", f, r);
    static const std::regex options("\\(([^)]*)\\)"), fsid("(?:^|,)fsid=([^,]+)");
    if (at(f, "config").is_null())
        return p.not_checked(no_config);
    for (const auto& [name, s] : at(f, "config.server").items()) {
        std::map<std::string, std::string> paths; // by fsid
        for (const json& e : at(s, "exports")) {
            const std::string line = e.is_string() ? e.get<std::string>() : "";
            const std::string path = line.substr(0, line.find(' '));
            bool missing = false, none = true;
            for (auto i = std::sregex_iterator(line.begin(), line.end(), options);
                 i != std::sregex_iterator(); ++i) {
                none = false;
                const std::string list = (*i)[1];
                std::smatch id;
                if (!std::regex_search(list, id, fsid)) {
                    missing = true;
                    continue;
                }
                const auto [other, is_new] = paths.emplace(id[1], path);
                if (!is_new && other->second != path)
                    p.wrong("server " + name + ": " + other->second + " and " + path +
                                " have the same fsid=" + id[1].str(),
                            "a number of its own for each file system, the same on all nodes");
            }
            if (missing || none)
                p.wrong(
                    "server " + name + ": the export of " + path +
                        " has no fsid=: file handles may differ between nodes, clients get ESTALE",
                    "fsid=N in its options, the same on all nodes");
        }
    }
}

void database(const json& f, report& r) {
    paper p("database", f, r);
    const std::string type = text(f, "database.filesystem"), path = text(f, "database.path");
    if (type.empty())
        return p.not_checked("it is not known what file system " + path + " is on");
    static const std::set<std::string> shared = {"gfs2",           "ocfs2",  "nfs",  "nfs4",
                                                 "cifs",           "smb3",   "ceph", "glusterfs",
                                                 "fuse.glusterfs", "lustre", "9p",   "afs"};
    if (shared.contains(type))
        p.wrong("the recovery database " + path + " is on " + type +
                    ": each node needs one of its own, which waits for no other node",
                "[store] path on a local disk");
    else if (type == "tmpfs" || type == "ramfs")
        p.wrong("the recovery database " + path + " is in memory (" + type +
                    "): a reboot loses the record of all clients",
                "[store] path on a local disk");
}

void leftovers(const json& f, report& r) {
    paper p("leftovers", f, r);
    for (const json& file : at(f, "database.beside")) {
        const std::string name = file.is_string() ? file.get<std::string>() : "?";
        const bool crash = name.rfind("crash-", 0) == 0;
        p.advice(
            std::string(crash ? "graced has ended by a bug once: " : "a database was set aside: ") +
                name,
            crash ? "report it (gracectl replay shows it), then remove it"
                  : "troubleshooting.md says why; remove it when you know");
    }
    const json& servers = at(f, "status.servers");
    if (!servers.is_array())
        return p.not_checked(no_daemon);
    const auto here = hosted_here(f);
    for (const json& s : at(f, "servers_here"))
        if (!here.contains(text(s, "name")))
            p.wrong("something of server " + text(s, "name") +
                        " is left on this node, and graced says that it is not hosted here",
                    "graced-server status " + text(s, "name") + "; graced-server stop " +
                        text(s, "name"));
    for (const json& s : servers)
        if (at(s, "host").is_null() && is(s, "need", false) && number(s, "clients", 0) > 0)
            p.advice("server " + text(s, "name") + " has " + at(s, "clients").dump() +
                         " clients on record and no node hosts it: each cold start of the cluster "
                         "is a grace for it",
                     "start it somewhere, or if it is gone for good: gracectl remove " +
                         text(s, "name") + " --yes");
}

void members(const json& f, report& r) {
    paper p("members", f, r);
    const json& nodes = at(f, "status.nodes");
    if (!nodes.is_array())
        return p.not_checked(no_daemon);
    const json& without = at(f, "config.grace.nodes_without_gfs2");
    for (const json& n : nodes) {
        const std::string name = text(n, "name", "?");
        if (!is(n, "live", true) || (without.is_array() && std::find(without.begin(), without.end(),
                                                                     at(n, "id")) != without.end()))
            continue;
        if (is(n, "member", false))
            p.wrong("node " + name + " is a member of the cluster and graced does not run there" +
                        (is(n, "attached", false)
                             ? ", and has not since it booted: no reclaim opens"
                             : ""),
                    "start graced there, or name the node in nodes_without_gfs2 on all nodes if it "
                    "never mounts the GFS2");
        else if (is(n, "attached", false))
            p.wrong("node " + name + " has no gate that holds locks back: no reclaim opens",
                    "gracectl status there says why");
    }
}

void clock_right(const json& f, report& r) {
    paper p("clock", f, r);
    if (at(f, "clock_synchronized").is_null())
        return p.not_checked("the kernel does not say whether its clock is synchronized");
    if (is(f, "clock_synchronized", false))
        p.advice("this node's clock is not synchronized: times in logs and histories do not "
                 "compare (nothing else depends on it)",
                 "chrony, or systemd-timesyncd");
}

// --- several nodes ---

// What should be the same everywhere, and is not: who says what.
std::string differing(const std::vector<json>& all, const std::function<json(const json&)>& get,
                      bool& differ) {
    std::map<std::string, std::vector<std::string>> by; // value: nodes
    for (const json& f : all) {
        const json value = get(f);
        if (!value.is_null())
            by[value.is_string() ? value.get<std::string>() : value.dump()].push_back(name_of(f));
    }
    differ = by.size() > 1;
    std::vector<std::string> parts;
    for (const auto& [value, nodes] : by)
        parts.push_back(value + " on " + joined(nodes));
    return joined(parts, "; ");
}

void same(const char* check, const std::vector<json>& all, report& r, const std::string& what,
          const std::string& remedy, const std::function<json(const json&)>& get,
          bool advice = false) {
    bool differ = false;
    const std::string how = differing(all, get, differ);
    paper p(check, json{{"host", "cluster"}}, r);
    if (differ && advice)
        p.advice(what + " differs: " + how, remedy);
    else if (differ)
        p.wrong(what + " differs: " + how, remedy);
}

void same_servers(const std::vector<json>& all, report& r) {
    std::set<std::string> names;
    for (const json& f : all)
        for (const auto& [name, s] : at(f, "config.server").items())
            names.insert(name);
    for (const std::string& name : names) {
        std::vector<std::string> without;
        for (const json& f : all)
            if (at(f, "config").is_object() && !at(f, "config.server").contains(name))
                without.push_back(name_of(f));
        if (!without.empty())
            paper("same servers", json{{"host", "cluster"}}, r)
                .wrong("[server." + name + "] is not defined on " + joined(without) +
                           ": it cannot be hosted there, or is called otherwise there, and its "
                           "clients would not know it",
                       "the same section in graced.conf of every node, save the interface");
        for (const char* key :
             {"exports", "addresses", "nfs_versions", "cld_version", "grace_time", "lease_time"})
            same("same servers", all, r, "[server." + name + "] " + key, "the same on every node",
                 [&](const json& f) {
                     const json& servers = at(f, "config.server");
                     return servers.is_object() && servers.contains(name) ? at(servers[name], key)
                                                                          : json();
                 });
    }
}

void same_settings(const std::vector<json>& all, report& r) {
    for (const char* key : {"graced.state", "graced.group", "grace.period", "grace.orphan_timeout",
                            "grace.daemon_timeout", "grace.nodes_without_gfs2", "locks.backend"})
        same("same settings", all, r, std::string("[") + key + "]",
             "the same in graced.conf of every node, then systemctl restart graced, node by node",
             [key](const json& f) { return at(f, std::string("config.") + key); });
    // What runs: a file does not say what its token timeout amounts to.
    for (const char* key : {"two_node", "wait_for_all", "last_man_standing", "token"})
        same("same settings", all, r, std::string("corosync's ") + key,
             "the same corosync.conf on every node", [key](const json& f) {
                 return is(f, "corosync.running", true) ? at(f, std::string("corosync.") + key)
                                                        : json();
             });
}

void same_modules(const std::vector<json>& all, report& r) {
    for (const char* name : {"lockd_shim", "gfs2_gate"})
        same("same modules", all, r, std::string("the module ") + name,
             "upgrade.md: standby first, one node after the other", [name](const json& f) {
                 const json& m = at(f, std::string("modules.") + name);
                 return is(m, "loaded", true) ? json(text(m, "version") + " (source " +
                                                     text(m, "srcversion", "?") + ")")
                                              : json();
             });
}

void same_versions(const std::vector<json>& all, report& r) {
    same("same versions", all, r, "graced", "an update has not been finished (upgrade.md)",
         [](const json& f) {
             const json& v = at(f, "status.version");
             return v.is_null() ? at(f, "version") : v;
         });
}

constexpr double clocks_apart = 1; // seconds

void same_clock(const std::vector<json>& all, report& r) {
    for (const json& f : all) {
        const double off = number(f, "clock_offset", 0);
        if (std::abs(off) > clocks_apart)
            paper("same clock", f, r)
                .advice(
                    "its clock is " + shown(std::abs(off)) + " s " +
                        (off > 0 ? "ahead" : "behind") +
                        ": times in logs and histories do not compare (nothing else depends on it)",
                    "chrony, or systemd-timesyncd, on every node");
    }
}

} // namespace

const std::vector<check>& checks() {
    static const std::vector<check> all = {
        {"configuration", "graced.conf can be read", configuration, {}},
        {"daemon", "graced runs, has quorum, is in sync, is not bypassed", running, {}},
        {"boot", "graced is enabled", at_boot, {}},
        {"modules",
         "lockd_shim and gfs2_gate are loaded, the gate is attached",
         modules_loaded,
         {}},
        {"gfs2",
         "no GFS2 is or can be mounted without a gate, none with localflocks",
         gfs2_gated,
         {}},
        {"nodes_without_gfs2", "nodes that are named there have no GFS2", without_gfs2, {}},
        {"nfsdcld", "nfsdcld does not run and is masked", other_tracker, {}},
        {"fencing", "every node can be powered off; DLM carries POSIX locks", fencing, {}},
        {"quorum", "two_node has wait_for_all, no last_man_standing", quorum, {}},
        {"permit", "the token timeout is longer than the permit", permit, {}},
        {"times", "grace and lease times fit together", times, {}},
        {"scope", "each server has its name as scope", scope, {}},
        {"exports", "every export has an fsid of its own", exports, {}},
        {"database", "the recovery database is on a local disk", database, {}},
        {"leftovers", "files, servers and records that nobody needs", leftovers, {}},
        {"members", "every member has its gate attached", members, {}},
        {"clock", "the clock is synchronized", clock_right, {}},
        {"same servers",
         "servers are defined alike on all nodes: names, exports, fsid",
         {},
         same_servers},
        {"same settings", "so are graced's and corosync's settings", {}, same_settings},
        {"same modules", "modules are the same on all nodes", {}, same_modules},
        {"same versions", "so is graced", {}, same_versions},
        {"same clock", "clocks agree within a second", {}, same_clock}};
    return all;
}

report examine(const std::vector<json>& all) {
    report r;
    std::set<std::string> nodes;
    for (const json& f : all)
        nodes.insert(name_of(f));
    // The others of the cluster, as the first knows them.
    std::set<std::string> missing;
    if (!all.empty()) {
        const json& told = at(all.front(), "status.nodes").is_array()
                               ? at(all.front(), "status.nodes")
                               : at(all.front(), "corosync.nodes");
        for (const json& n : told)
            if (!nodes.contains(text(n, "name")))
                missing.insert(text(n, "name", "?"));
    }
    for (const check& c : checks()) {
        if (c.of_node)
            for (const json& f : all)
                c.of_node(f, r);
        if (!c.of_all)
            continue;
        c.of_all(all, r);
        if (!missing.empty())
            r.not_checked.push_back({c.name, "cluster",
                                     "nothing is known of " +
                                         joined({missing.begin(), missing.end()}) +
                                         ": --ssh, or --with"});
    }
    return r;
}

} // namespace grace::doctor
