// SPDX-License-Identifier: Apache-2.0
// One direction of a link between two neighbours of a ring: what is sent arrives some time later, most of it as it was.
//
// Timing (see LinkTiming).  A beat arrives `latency_ns` after the cycle in which it was taken, rounded down to cycles, but at least one cycle later.
// Beats are taken at `gbps` on average: time earns credit, a beat costs its bytes, and a pause earns credit for a short burst.  A beat that is on its way
// cannot be held up: the receiver takes one whenever it comes, as behind an Aurora core.
//
// Faults, all from the seed.  A frame is a row of beats up to `last`.  Some frames arrive with one bit flipped, some not at all; the sender is held
// back at random, and gaps come between arrivals.  A link that is cut takes beats as before and delivers none.
//
// The two ends may be at different cycles and in different threads, as long as both are in one window (of at most `latency()` cycles): what is sent in a
// window is seen by the receiver in later ones only.
#pragma once
#include <array>
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

namespace heddle {

struct LinkTiming {
    double clock_mhz = 100;
    double latency_ns = 540;
    double gbps = 12.1;                 // bytes per ns
    uint32_t corrupt_permille = 0;      // frames of which a bit is flipped
    uint32_t drop_permille = 0;         // frames that are lost
    uint32_t stall_permille = 0;        // cycles in which the sender is held back; half as many lie idle at the receiver
    uint64_t seed = 1;
};

class Random {
public:
    explicit Random(uint64_t state) : state_(state) {}
    uint64_t next();
    // True in so many of 1000 cases; 0 costs nothing.
    bool chance(uint32_t permille) { return permille && next() % 1000 < permille; }

private:
    uint64_t state_;
};

class Link {
public:
    struct Beat {
        uint64_t due;                   // cycle in which it arrives
        bool last;
        std::array<uint8_t, 64> data;
    };

    // `number` makes links of one seed differ.
    Link(const LinkTiming& timing, uint32_t beat_bytes, uint32_t number);

    uint64_t latency() const { return latency_; }
    // From this cycle on nothing arrives.
    void cut(uint64_t cycle) { cut_ = cycle; }

    // Each end says which window it begins; they are numbered one after another.
    void begin_send(uint64_t window) { out_ = &sent_[window & 1]; }
    void begin_receive(uint64_t window);

    // The sender's end: whether it is ready in this cycle, and what the sender drove in it.  A sender that is reset may withdraw a beat.
    bool ready() const { return ready_; }
    void send(uint64_t cycle, bool valid, const void* data, bool last, bool reset);
    // The receiver's end: what arrives in this cycle, or nothing; valid until the next call.
    const Beat* receive(uint64_t cycle);

    // The sender's first breach of AXI4-Stream, or nothing.
    const std::string& violation() const { return violation_; }
    void forgive() { violation_.clear(); }

private:
    const LinkTiming timing_;
    const uint32_t beat_;
    const uint64_t latency_;
    const double per_cycle_;            // bytes
    uint64_t cut_ = ~0ull;
    // Sender.
    Random send_random_;
    double credit_;
    bool ready_ = true, first_ = true, drop_ = false, spoil_ = false, held_ = false;
    Beat waiting_{};                    // what must not change until it is taken, if held_
    std::string violation_;
    std::vector<Beat>* out_;
    // What was sent in the windows of even and odd numbers, until the receiver's next window.
    std::vector<Beat> sent_[2];
    // Receiver.
    Random receive_random_;
    std::deque<Beat> coming_;
    Beat here_{};
};

}  // namespace heddle
