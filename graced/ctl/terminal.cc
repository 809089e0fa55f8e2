// SPDX-License-Identifier: GPL-2.0-or-later
#include "graced/ctl/terminal.hh"

#include <array>
#include <cerrno>
#include <clocale>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <cstring>
#define NCURSES_NOMACROS 1 // their names are everywhere
#include <curses.h>
#include <langinfo.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

namespace grace::ctl {

namespace {

class curses_screen final : public watch_screen {
public:
    explicit curses_screen(SCREEN* s)
        : screen_(s) {
        cbreak();
        noecho();
        nodelay(stdscr, TRUE);
        curs_set(0);
        const char* no_color = std::getenv("NO_COLOR"); // no-color.org
        if ((no_color == nullptr || *no_color == 0) && has_colors() && start_color() == OK) {
            use_default_colors();
            short n = 0;
            for (const int colour : {COLOR_GREEN, COLOR_YELLOW, COLOR_RED})
                init_pair(++n, static_cast<short>(colour), -1);
            colours_ = true;
        }
        resize();
    }
    ~curses_screen() override {
        endwin();
        delscreen(screen_);
    }
    [[nodiscard]] std::size_t width() const override { return static_cast<std::size_t>(COLS); }
    [[nodiscard]] std::size_t height() const override { return static_cast<std::size_t>(LINES); }
    [[nodiscard]] bool utf8() const override {
        return std::strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
    }
    void show(const std::vector<screen_line>& lines) override {
        erase();
        for (std::size_t y = 0; y < lines.size(); ++y) {
            move(static_cast<int>(y), 0);
            for (const piece& p : lines[y]) {
                attrset(static_cast<int>(look(p.colour)));
                addstr(p.text.c_str());
            }
        }
        refresh();
    }
    static void resize() {
        winsize w{};
        if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_row > 0 && w.ws_col > 0)
            resizeterm(w.ws_row, w.ws_col);
    }

private:
    [[nodiscard]] chtype look(ink i) const {
        const auto pair = [&](int n, chtype otherwise) {
            return colours_ ? static_cast<chtype>(COLOR_PAIR(n)) : otherwise;
        };
        switch (i) {
        case ink::faint:
            return A_DIM;
        case ink::strong:
            return A_BOLD;
        case ink::bar:
            return A_REVERSE;
        case ink::good:
            return pair(1, A_NORMAL);
        case ink::busy:
            return pair(2, A_NORMAL) | A_BOLD;
        case ink::bad:
            return pair(3, A_NORMAL) | A_BOLD;
        case ink::plain:
            break;
        }
        return A_NORMAL;
    }
    SCREEN* screen_;
    bool colours_ = false;
};

} // namespace

terminal::~terminal() {
    if (signals_ >= 0)
        ::close(signals_);
}

std::unique_ptr<watch_screen> terminal::open() {
    const char* const kind = std::getenv("TERM");
    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO) || kind == nullptr ||
        std::strcmp(kind, "dumb") == 0)
        return nullptr;
    std::setlocale(LC_CTYPE, "");
    sigset_t set, before;
    sigemptyset(&set);
    for (const int s : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH})
        sigaddset(&set, s);
    sigprocmask(SIG_BLOCK, &set, &before);
    SCREEN* const screen = newterm(kind, stdout, stdin);
    if (screen == nullptr) { // it cannot do what is needed, or nobody knows it
        sigprocmask(SIG_SETMASK, &before, nullptr);
        return nullptr;
    }
    signals_ = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return std::make_unique<curses_screen>(screen);
}

bool terminal::wait(double seconds) {
    const bool drawn_on = signals_ >= 0;
    // Of standard output only that nobody reads it any more.
    std::array<pollfd, 2> ends = {
        {{signals_, POLLIN, 0},
         {drawn_on ? STDIN_FILENO : STDOUT_FILENO, static_cast<short>(drawn_on ? POLLIN : 0), 0}}};
    const int ready =
        ::poll(ends.data(), ends.size(), static_cast<int>(std::lround(seconds * 1000)));
    if (ready < 0)
        return errno == EINTR; // stopped and continued
    if (!drawn_on)
        return (ends[1].revents & (POLLERR | POLLHUP | POLLNVAL)) == 0;
    for (signalfd_siginfo s{}; ::read(signals_, &s, sizeof s) == sizeof s;) {
        if (s.ssi_signo != SIGWINCH)
            return false;
        curses_screen::resize();
    }
    if (ends[1].revents == 0)
        return true;
    int keys = 0;
    for (int key = getch(); key != ERR; key = getch()) {
        ++keys;
        if (key == 'q' || key == 'Q')
            return false;
        if (key == 'L' - '@') // Ctrl-L
            clearok(curscr, TRUE);
    }
    return keys != 0; // readable, but nothing to read: the terminal is gone
}

} // namespace grace::ctl
