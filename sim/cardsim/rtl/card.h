// SPDX-License-Identifier: Apache-2.0
// One Verilated bench (a card and its HBM channels) that is clocked for some cycles at a time.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "Vheddle_bench.h"
#include "link.h"
#include "verilated.h"
#if HEDDLE_TRACE
#include "verilated_vcd_c.h"
#endif

namespace heddle {

// Of one access to the control port, or a reset.  Result: 0 done, 1 the card answered with an error, 2 it did not answer.
enum Kind : uint32_t { kWrite, kRead, kReset };
struct Access {
    uint32_t kind, address, data, result;
};

// How the wait for the interrupt has ended: it came, it has not yet, the AXI protocol was broken, or $stop or an assertion.
enum End { kDone, kLimit, kViolation, kFinished };

// A card's sides in a ring.
enum Side { kPrevious, kNext };

class Card {
public:
    Card(int index, uint64_t seed);

    // Join a side to a link in each direction.
    void join(Side side, Link* out, Link* in) { out_[side] = out, in_[side] = in; }

    // What is to be done next: accesses, one after another, or a wait for the interrupt.
    void begin(Access* accesses, size_t count);
    void await();
    void give_up() { awaiting_ = false; }
    // Nothing of this is left.
    bool settled() const { return next_ == last_ && !awaiting_; }

    // Be clocked so many cycles, in a window of that number; or fewer, if `once` it is settled.
    void run(uint64_t cycles, uint64_t window, bool once);

    End end() const { return end_; }
    uint64_t ended_at() const { return ended_at_; }
    uint64_t cycles() const { return cycles_; }
    // The first breach of a protocol since the last reset, or nothing.
    const char* violation();

    // Record events of so many cycles from here on, of a card of so many channels; what was recorded goes.
    void record(uint64_t cycles, uint32_t channels);
    const std::vector<uint8_t>& events() const { return events_; }
    // Record the waveform to a file, or no longer; false if this library cannot.
    bool trace(const char* path);

private:
    void access();
    void finish(uint32_t result);
    void settle();
    void edge();
    void tick() { settle(), edge(); }
    void dump(uint64_t time);
    void over(End end);

    const int index_;
    std::unique_ptr<VerilatedContext> context_;
    std::unique_ptr<Vheddle_bench> top_;
#if HEDDLE_TRACE
    std::unique_ptr<VerilatedVcdC> waves_;
#endif
    uint64_t cycles_ = 0, ended_at_ = 0;
    End end_ = kLimit;
    bool awaiting_ = false;
    Access *next_ = nullptr, *last_ = nullptr;
    uint32_t step_ = 0;                 // cycles of the access under way
    Link *out_[2] = {}, *in_[2] = {};
    std::string violation_;
    // Events: of each recorded cycle the card's word, then a byte of each channel.
    std::vector<uint8_t> events_;
    size_t record_bytes_ = 0, events_limit_ = 0;    // 0: nothing is recorded
};

}  // namespace heddle
