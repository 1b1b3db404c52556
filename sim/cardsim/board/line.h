// SPDX-License-Identifier: Apache-2.0
// A pseudo-terminal on one side, two pins of a serial line on the other: bits take their time in clock cycles.
#pragma once
#include <cstdint>
#include <deque>
#include <random>
#include <string>

namespace heddle {

class Line {
public:
    // `bit`: cycles of a bit.  Of a thousand bytes in either direction, `faults` are changed, lost or doubled.
    Line(double bit, unsigned faults, uint64_t seed);
    ~Line();

    // The device that a program opens.
    const std::string& name() const { return name_; }
    // A cycle: what the board's pin tx says; what its pin rx gets.
    bool clock(bool tx);
    // Wait for bytes for some ms, unless there are any.
    void wait(int milliseconds);
    // Cycles in which neither direction had a bit.
    uint64_t idle() const { return idle_; }
    // The other end has been closed by everybody who had opened it.
    bool closed() const { return closed_; }

private:
    void fetch();
    void give(uint8_t byte);
    // Bytes that come of one on a bad line.
    std::string spoil(uint8_t byte);

    int master_, slave_;
    std::string name_;
    const double bit_;
    const unsigned faults_;
    std::mt19937_64 random_;
    std::deque<uint8_t> waiting_;
    uint64_t cycle_ = 0, idle_ = 0;
    bool closed_ = false;
    // To the board: the frame of ten bits and how far it is; from the board: cycles since the start bit.
    unsigned sending_ = 0, sent_ = 10;
    double send_at_ = 0;
    unsigned bits_ = 0, seen_ = 0;
    double look_at_ = -1;
};

}  // namespace heddle
