// SPDX-License-Identifier: Apache-2.0
#include "line.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>

namespace heddle {

namespace {
constexpr uint64_t kFetch = 64;     // cycles between two looks for bytes
}

Line::Line(double bit, unsigned faults, uint64_t seed) : bit_(bit), faults_(faults), random_(seed) {
    master_ = posix_openpt(O_RDWR | O_NOCTTY);
    if (master_ < 0 || grantpt(master_) || unlockpt(master_)) throw std::runtime_error(std::string("no pseudo-terminal: ") + strerror(errno));
    name_ = ptsname(master_);
    // Kept open, so that one program after another may open it; raw before the first one does.
    slave_ = open(name_.c_str(), O_RDWR | O_NOCTTY);
    termios how;
    if (slave_ < 0 || tcgetattr(slave_, &how)) throw std::runtime_error(std::string("no pseudo-terminal: ") + strerror(errno));
    cfmakeraw(&how);
    tcsetattr(slave_, TCSANOW, &how);
    fcntl(master_, F_SETFL, O_NONBLOCK);
}

Line::~Line() {
    close(slave_);
    close(master_);
}

std::string Line::spoil(uint8_t byte) {
    if (!faults_ || random_() % 1000 >= faults_) return std::string(1, char(byte));
    switch (random_() % 3) {
    case 0: return std::string(1, char(byte ^ 1u << random_() % 8));
    case 1: return "";
    default: return std::string(2, char(byte));
    }
}

void Line::fetch() {
    char bytes[4096];
    const ssize_t count = read(master_, bytes, sizeof bytes);
    for (ssize_t k = 0; k < count; k++)
        for (const char byte : spoil(uint8_t(bytes[k]))) waiting_.push_back(uint8_t(byte));
}

void Line::give(uint8_t byte) {
    for (const char one : spoil(byte)) {
        // A full terminal loses bytes, as a serial port without handshake does.
        if (write(master_, &one, 1) < 0) return;
    }
}

void Line::wait(int milliseconds) {
    if (!waiting_.empty()) return;
    pollfd one = {master_, POLLIN, 0};
    poll(&one, 1, milliseconds);
}

bool Line::clock(bool tx) {
    if (waiting_.empty() && cycle_ % kFetch == 0) fetch();
    const double now = double(cycle_++);
    idle_++;

    // From the board: each bit in its middle.
    if (look_at_ < 0) {
        if (!tx) {
            look_at_ = now + bit_ / 2;
            bits_ = seen_ = 0;
        }
    } else if (now >= look_at_) {
        bits_ |= unsigned(tx) << seen_;
        look_at_ += bit_;
        if (++seen_ == 10) {
            look_at_ = -1;
            if ((bits_ & 1) == 0 && bits_ >> 9) give(uint8_t(bits_ >> 1));
        }
    }

    // To the board.
    if (sent_ < 10 && now >= send_at_ + bit_) {
        sent_++;
        send_at_ += bit_;
    }
    if (sent_ >= 10 && !waiting_.empty()) {
        sending_ = 1u << 9 | unsigned(waiting_.front()) << 1;
        waiting_.pop_front();
        sent_ = 0;
        // Without a pause after the byte before, if there was none.
        send_at_ = now - send_at_ < bit_ ? send_at_ : now;
    }
    if (sent_ < 10 || look_at_ >= 0) idle_ = 0;
    return sent_ >= 10 || (sending_ >> sent_ & 1);
}

}  // namespace heddle
