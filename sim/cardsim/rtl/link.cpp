// SPDX-License-Identifier: Apache-2.0
#include "link.h"

#include <algorithm>
#include <cstring>

namespace heddle {

Link::Link(const LinkTiming& timing, double clock_mhz, uint32_t beat_bytes, uint32_t number)
    : latency_(std::max<uint64_t>(1, uint64_t(timing.latency_ns * clock_mhz / 1000))),
      random_((timing.seed + 1) * 0x9E3779B97F4A7C15ull ^ (number + 1) * 0xD1B54A32D192ED03ull),
      per_cycle_(timing.gbps * 1000 / clock_mhz), beat_(beat_bytes), corrupt_(timing.corrupt_permille),
      drop_(timing.drop_permille), stall_(timing.stall_permille) {}

uint64_t Link::random() {
    random_ ^= random_ << 13;
    random_ ^= random_ >> 7;
    random_ ^= random_ << 17;
    return random_;
}

void Link::send(uint64_t cycle, bool valid, const uint8_t* data, bool last) {
    if (valid && ready_) {
        credit_ -= beat_;
        const bool begins = first_;
        first_ = last;
        if (begins) dropping_ = drop_ && random() % 1000 < drop_;
        if (!dropping_ && cycle < cut_) {
            sent_.push_back({cycle + latency_, last, std::vector<uint8_t>(data, data + beat_)});
            if (begins && corrupt_ && random() % 1000 < corrupt_) {
                const uint64_t bit = random() % (8 * beat_);
                sent_.back().data[bit / 8] ^= 1 << bit % 8;
            }
        }
    }
    // Two beats may go at once after a pause, no more.
    credit_ = std::min(credit_ + per_cycle_, 2.0 * beat_);
    ready_ = credit_ >= beat_ && !(stall_ && random() % 1000 < stall_);
}

bool Link::receive(uint64_t cycle, uint8_t* data, bool* last) {
    if (coming_.empty() || coming_.front().due > cycle) return false;
    std::memcpy(data, coming_.front().data.data(), beat_);
    *last = coming_.front().last;
    coming_.pop_front();
    return true;
}

void Link::settle() {
    for (Beat& beat : sent_) coming_.push_back(std::move(beat));
    sent_.clear();
}

void Link::reset() {
    sent_.clear();
    coming_.clear();
    first_ = true;
}

}  // namespace heddle
