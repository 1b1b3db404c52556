// SPDX-License-Identifier: Apache-2.0
#include "sdram.h"

#include <algorithm>

namespace heddle {

namespace {
enum Command { kMode, kRefresh, kPrecharge, kActivate, kWrite, kRead, kTerminate, kNop };
constexpr unsigned kAllBanks = 1 << 10;
constexpr unsigned kLate = 10;      // refreshes that may be put off
}  // namespace

Sdram::Sdram(const Chip& chip, double clock_hz, double power_up)
    : chip_(chip), period_(1e9 / clock_hz), power_up_(power_up), content_(size_t(4) << chip.row_bits << chip.column_bits), drives_(16, -1) {}

void Sdram::check(bool holds, const std::string& what) {
    if (!holds && violation_.empty()) violation_ = "cycle " + std::to_string(cycle_) + ": " + what;
}

void Sdram::since(double moment, double least, const std::string& what) {
    if (now_ - moment < least - 1e-6)
        check(false, what + " must be " + std::to_string(least) + " ns ago, not " + std::to_string(now_ - moment));
}

uint16_t Sdram::clock(const Pins& pins) {
    now_ = ++cycle_ * period_;
    check(!pins.dq_oe || cycle_ > busy_, "both ends drive dq");
    if (pins.cke && !pins.cs_n && pins.command != kNop) carry_out(pins);
    if (mode_) {
        const double due = (now_ - mode_set_) / (chip_.retention / double(1u << chip_.row_bits));
        check(due <= double(refreshes_) + kLate, "rows are not refreshed in time");
    }
    int32_t& word = drives_[cycle_ % drives_.size()];
    noise_ = noise_ * 1664525 + 1013904223;
    const uint16_t found = word < 0 ? uint16_t(noise_ >> 16) : uint16_t(word);
    word = -1;
    return found;
}

void Sdram::carry_out(const Pins& pins) {
    Bank& bank = banks_[pins.ba];
    const std::string name = " of bank " + std::to_string(pins.ba);
    since(0, power_up_, "power-up");
    since(refreshed_, chip_.rfc, "REFRESH");
    since(mode_set_, chip_.mrd * period_, "MODE");
    const bool closed = std::all_of(banks_.begin(), banks_.end(), [](const Bank& b) { return b.row < 0; });
    switch (pins.command) {
    case kPrecharge:
        for (Bank& b : banks_) {
            if (!(pins.a & kAllBanks) && &b != &bank) continue;
            if (b.row >= 0) {
                since(b.opened, chip_.ras, "ACTIVATE of a bank that is closed");
                since(b.written, chip_.wr, "the last word written to a bank that is closed");
            }
            b.row = -1;
            b.closed = now_;
        }
        break;
    case kRefresh:
        check(closed, "REFRESH needs all banks closed");
        for (const Bank& b : banks_) since(b.closed, chip_.rp, "PRECHARGE");
        refreshed_ = now_;
        refreshes_++;
        break;
    case kMode:
        check(closed && refreshes_ >= 2, "MODE needs all banks closed and two refreshes");
        check((pins.a & 7) == 0 && (pins.a >> 4 & 7) == chip_.cas && pins.a >> 9 & 1, "the mode must be single words with the chip's CAS latency");
        mode_ = true;
        mode_set_ = now_;
        refreshes_ = 0;
        break;
    case kActivate:
        check(mode_, "ACTIVATE before MODE");
        check(bank.row < 0, "ACTIVATE" + name + ", which is open");
        since(bank.closed, chip_.rp, "PRECHARGE" + name);
        since(bank.opened, chip_.rc, "ACTIVATE" + name);
        since(latest_, chip_.rrd, "ACTIVATE of another bank");
        bank.row = int(pins.a);
        bank.opened = latest_ = now_;
        break;
    case kRead:
    case kWrite: {
        check(bank.row >= 0, "READ or WRITE" + name + ", which is closed");
        check(pins.a >> chip_.column_bits == 0, "automatic precharge is not known here");
        check(pins.dqm == 0, "masked bytes are not known here");
        since(bank.opened, chip_.rcd, "ACTIVATE" + name);
        uint16_t& word = content_[((size_t(pins.ba) << chip_.row_bits) + std::max(bank.row, 0) << chip_.column_bits) + (pins.a & ((1u << chip_.column_bits) - 1))];
        if (pins.command == kRead) {
            drives_[(cycle_ + chip_.cas - 1) % drives_.size()] = word;
            busy_ = cycle_ + chip_.cas;
        } else {
            check(pins.dq_oe, "WRITE without data");
            word = uint16_t(pins.dq);
            bank.written = now_;
        }
        break;
    }
    default:
        check(false, "BURST TERMINATE is not known here");
    }
}

}  // namespace heddle
