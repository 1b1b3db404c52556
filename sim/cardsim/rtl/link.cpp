// SPDX-License-Identifier: Apache-2.0
#include "link.h"

#include <algorithm>
#include <cstring>

namespace heddle {

namespace {
constexpr double kBurst = 4;            // beats that may follow a pause at the port's own rate
constexpr uint32_t kSpoil = 4;          // of a frame that is spoilt, every beat is hit with a chance of 1 in this, or the last
}  // namespace

// splitmix64: any two seeds are far apart.
uint64_t Random::next() {
    uint64_t z = state_ += 0x9E3779B97F4A7C15ull;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ z >> 27) * 0x94D049BB133111EBull;
    return z ^ z >> 31;
}

Link::Link(const LinkTiming& timing, uint32_t beat_bytes, uint32_t number)
    : timing_(timing), beat_(beat_bytes), latency_(std::max<uint64_t>(1, uint64_t(timing.latency_ns * timing.clock_mhz / 1000))),
      per_cycle_(timing.gbps * 1000 / timing.clock_mhz), send_random_((timing.seed << 16) + 2 * number), credit_(kBurst * beat_bytes),
      out_(&sent_[0]), receive_random_((timing.seed << 16) + 2 * number + 1) {}

void Link::begin_receive(uint64_t window) {
    std::vector<Beat>& before = sent_[~window & 1];
    coming_.insert(coming_.end(), before.begin(), before.end());
    before.clear();
}

void Link::send(uint64_t cycle, bool valid, const void* data, bool last, bool reset) {
    if (held_ && !reset && violation_.empty() && (!valid || last != waiting_.last || std::memcmp(data, waiting_.data.data(), beat_)))
        violation_ = "cycle " + std::to_string(cycle) + ": a beat changed before it was taken";
    held_ = valid && !ready_;
    if (held_) {
        waiting_.last = last;
        std::memcpy(waiting_.data.data(), data, beat_);
    }
    if (valid && ready_) {
        credit_ -= beat_;
        if (first_) {
            drop_ = send_random_.chance(timing_.drop_permille);
            spoil_ = send_random_.chance(timing_.corrupt_permille);
        }
        first_ = last;
        if (!drop_) {
            Beat beat{cycle + latency_, last, {}};
            std::memcpy(beat.data.data(), data, beat_);
            if (spoil_ && (last || send_random_.next() % kSpoil == 0)) {
                const uint64_t bit = send_random_.next() % (8 * beat_);
                beat.data[bit / 8] ^= 1 << bit % 8;
                spoil_ = false;
            }
            out_->push_back(beat);
        }
    }
    credit_ = std::min(credit_ + per_cycle_, kBurst * beat_);
    ready_ = credit_ >= beat_ && !send_random_.chance(timing_.stall_permille);
}

const Link::Beat* Link::receive(uint64_t cycle) {
    if (cycle >= cut_) {
        while (!coming_.empty() && coming_.front().due <= cycle) coming_.pop_front();
        return nullptr;
    }
    // Fewer gaps than stalls: what is on its way must not pile up.
    if (coming_.empty() || coming_.front().due > cycle || receive_random_.chance(timing_.stall_permille / 2)) return nullptr;
    here_ = coming_.front();
    coming_.pop_front();
    return &here_;
}

}  // namespace heddle
