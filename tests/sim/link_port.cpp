// SPDX-License-Identifier: Apache-2.0
// A sender and a receiver at the ends of the model of a link, which run one window after another, each for itself.
#include <cstdint>
#include <cstring>

#include "link.h"

using heddle::Link;

struct Sent {
    uint64_t not_before, taken;     // cycles
    uint32_t value, last;           // value: all words of the beat
    uint32_t breach;                // while it waits: 1 it changes, 2 it is withdrawn
};
struct Came {
    uint64_t cycle;
    uint32_t last;
    uint8_t data[64];
};

namespace {
struct Sender {
    Sent* next;
    Sent* end;
    bool waited = false;

    void run(Link& link, uint64_t from, uint64_t to) {
        for (uint64_t cycle = from; cycle < to; cycle++) {
            uint32_t words[16] = {};
            const bool due = next != end && cycle >= next->not_before;
            const bool breach = due && waited;
            for (uint32_t& word : words) word = due ? next->value + (breach && next->breach == 1) : 0;
            const bool valid = due && !(breach && next->breach == 2), ready = link.ready();
            link.send(cycle, valid, words, due && next->last, false);
            waited = valid && !ready;
            if (valid && ready) (next++)->taken = cycle;
        }
    }
};

struct Receiver {
    Came* next;
    uint64_t count = 0;

    void run(Link& link, uint64_t from, uint64_t to) {
        for (uint64_t cycle = from; cycle < to; cycle++) {
            const Link::Beat* beat = link.receive(cycle);
            if (!beat) continue;
            next->cycle = cycle;
            next->last = beat->last;
            std::memcpy(next->data, beat->data.data(), 64);
            next++, count++;
        }
    }
};

std::string breach;
}  // namespace

extern "C" {

const char* link_breach() { return breach.c_str(); }

// Returns how many beats came in so many cycles.
uint64_t link_run(const heddle::LinkTiming* timing, uint32_t beat_bytes, uint32_t number, uint64_t cut, Sent* sent, uint64_t count, Came* came,
                  uint64_t cycles, uint64_t window, int receiver_first) {
    Link link(*timing, beat_bytes, number);
    link.cut(cut);
    if (window == 0) window = link.latency();
    Sender sender{sent, sent + count};
    Receiver receiver{came};
    for (uint64_t at = 0, turn = 5; at < cycles; at += window, turn++) {
        link.begin_send(turn);
        link.begin_receive(turn);
        if (receiver_first) receiver.run(link, at, at + window);
        sender.run(link, at, at + window);
        if (!receiver_first) receiver.run(link, at, at + window);
    }
    breach = link.violation();
    return receiver.count;
}
}
