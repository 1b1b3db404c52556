// SPDX-License-Identifier: Apache-2.0
// An SDR SDRAM of 16 bits with four banks, clocked at the falling edge of its controller's clock; every command is checked against its times.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace heddle {

// As rtl_gen.boards.Chip has it: bits of rows and columns, CAS latency and MODE in cycles, and times in ns.
struct Chip {
    unsigned row_bits, column_bits, cas, mrd;
    double rcd, rp, rc, ras, rrd, wr, rfc, retention;
};

// What the controller drives; `command` is ras_n, cas_n, we_n from the highest bit down.
struct Pins {
    bool cke, cs_n, dq_oe;
    unsigned command, ba, a, dqm, dq;
};

class Sdram {
public:
    // `power_up`: ns before the first command.
    Sdram(const Chip& chip, double clock_hz, double power_up);

    // A cycle with these pins; what is on dq at the controller's clock edge after the next.
    uint16_t clock(const Pins& pins);
    // The first command at a wrong time, or nothing.
    const std::string& violation() const { return violation_; }

private:
    struct Bank {
        int row = -1;       // none is open
        double opened = -1e12, closed = -1e12, written = -1e12;
    };

    void carry_out(const Pins& pins);
    void check(bool holds, const std::string& what);
    void since(double moment, double least, const std::string& what);

    const Chip chip_;
    const double period_, power_up_;
    std::vector<uint16_t> content_;
    std::array<Bank, 4> banks_;
    std::vector<int32_t> drives_;       // by cycle, modulo its size: the word on dq, or -1
    uint64_t cycle_ = 0, busy_ = 0, refreshes_ = 0;
    double now_ = 0, refreshed_ = -1e12, mode_set_ = -1e12, latest_ = -1e12;    // latest_: ACTIVATE of any bank
    bool mode_ = false;
    uint32_t noise_ = 1;
    std::string violation_;
};

}  // namespace heddle
