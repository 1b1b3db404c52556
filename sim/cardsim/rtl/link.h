// SPDX-License-Identifier: Apache-2.0
// One direction of a link between two cards: beats come out some time after they went in, as fast as the way allows, some of them spoilt.
//
// The sender's side and the receiver's side may be called from different threads for as many cycles as the latency; `settle` then hands over what
// was sent.  Rate: a beat costs its bytes over `gbps`; the sender is held back (`ready`) while it is ahead of that.
#pragma once
#include <cstdint>
#include <deque>
#include <vector>

namespace heddle {

struct LinkTiming {
    double latency_ns = 540;
    double gbps = 12.1;                 // bytes per ns
    uint32_t corrupt_permille = 0;      // frames of which a bit is flipped
    uint32_t drop_permille = 0;         // frames that are lost
    uint32_t stall_permille = 0;        // cycles in which the sender is held back
    uint64_t seed = 1;
};

class Link {
public:
    // `number` makes the random numbers of links differ.
    Link(const LinkTiming& timing, double clock_mhz, uint32_t beat_bytes, uint32_t number);

    // Sender, every cycle: whether a beat would be taken; then what was offered at the edge.
    bool ready() const { return ready_; }
    void send(uint64_t cycle, bool valid, const uint8_t* data, bool last);
    // Receiver, every cycle: whether a beat is there, and what.
    bool receive(uint64_t cycle, uint8_t* data, bool* last);
    // Hand over what was sent; both sides are at the same cycle.
    void settle();
    // Nothing that is sent from this cycle on comes out.
    void cut(uint64_t cycle) { cut_ = cycle; }
    // Forget what is under way.
    void reset();
    // Cycles of the way, at least 1.
    uint64_t latency() const { return latency_; }

private:
    struct Beat {
        uint64_t due;
        bool last;
        std::vector<uint8_t> data;
    };
    uint64_t random();

    uint64_t latency_, cut_ = ~0ull, random_;
    double credit_ = 0, per_cycle_;
    uint32_t beat_, corrupt_, drop_, stall_;
    bool ready_ = false, first_ = true, dropping_ = false;
    std::vector<Beat> sent_;
    std::deque<Beat> coming_;
};

}  // namespace heddle
