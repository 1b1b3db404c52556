// SPDX-License-Identifier: Apache-2.0
// A plain AXI4 master on one channel of the HBM model: sends a list of bursts as fast as it may, and notes when things happened.
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>

#include "hbm.h"

using heddle::Answer;
using heddle::Channel;
using heddle::Request;

struct Burst {
    uint64_t address;
    uint32_t beats, write, value;   // value: byte that is written everywhere, or the first byte that was read
    uint64_t not_before;            // clock edge
    // Clock edges: address taken, first and last beat, answer of a write.
    uint64_t taken, first, last, answered;
    uint32_t resp, same;            // same: all bytes that were read are equal
};

namespace {
std::unique_ptr<Channel> channel;
uint64_t edge;
uint32_t beat;
Answer answer;
}  // namespace

extern "C" {

void port_open(const heddle::Timing* timing, uint64_t bytes, uint32_t beat_bytes) {
    channel = std::make_unique<Channel>(0, bytes, beat_bytes);
    channel->configure(*timing);
    beat = beat_bytes;
    edge = 0;
    answer = Answer{};
}

uint8_t* port_data() { return channel->data(); }
const char* port_violation() { return channel->violation().c_str(); }

// Carry out `count` bursts, with at most `outstanding` of each direction under way; a beat is taken in one of `every` cycles.
// Returns the edge after the last event.
uint64_t port_run(Burst* bursts, uint64_t count, uint32_t outstanding, uint32_t every) {
    std::deque<Burst*> asks, sends, reads, fills, writes;
    for (uint64_t k = 0; k < count; k++) (bursts[k].write ? sends : asks).push_back(&bursts[k]);
    Burst *ask = nullptr, *send = nullptr;
    uint32_t read_beat = 0, fill_beat = 0;
    uint8_t data[128];
    const uint64_t limit = edge + 10000000;
    for (uint64_t done = 0; done < count && edge < limit; edge++) {
        if (!ask && !asks.empty() && reads.size() < outstanding && asks.front()->not_before <= edge) {
            ask = asks.front();
            asks.pop_front();
        }
        if (!send && !sends.empty() && writes.size() + fills.size() < outstanding && sends.front()->not_before <= edge) {
            send = sends.front();
            sends.pop_front();
        }
        Request r{};
        r.arsize = r.awsize = __builtin_ctz(beat);
        r.arburst = r.awburst = 1;
        r.wstrb = beat == 64 ? ~0ull : (1ull << beat) - 1;
        r.wdata = data;
        if (ask) r.arvalid = true, r.araddr = ask->address, r.arlen = ask->beats - 1;
        if (send) r.awvalid = true, r.awaddr = send->address, r.awlen = send->beats - 1;
        if (!fills.empty()) {
            r.wvalid = true;
            r.wlast = fill_beat + 1 == fills.front()->beats;
            std::memset(data, fills.front()->value, beat);
        }
        r.rready = edge % every == 0;
        r.bready = true;

        const Answer before = answer;
        answer = channel->tick(r);
        if (r.arvalid && before.arready) {
            ask->taken = edge;
            reads.push_back(ask);
            ask = nullptr;
        }
        if (before.rvalid && r.rready) {
            Burst& burst = *reads.front();
            if (read_beat == 0) burst.first = edge, burst.value = before.rdata[0], burst.resp = before.rresp, burst.same = 1;
            for (uint32_t k = 0; k < beat; k++) burst.same &= before.rdata[k] == burst.value;
            burst.last = edge;
            if (++read_beat == burst.beats) {
                reads.pop_front();
                read_beat = 0;
                done++;
            }
        }
        if (r.wvalid && before.wready) {
            Burst& burst = *fills.front();
            if (fill_beat == 0) burst.first = edge;
            burst.last = edge;
            if (++fill_beat == burst.beats) {
                writes.push_back(fills.front());
                fills.pop_front();
                fill_beat = 0;
            }
        }
        if (r.awvalid && before.awready) {
            send->taken = edge;
            fills.push_back(send);
            send = nullptr;
        }
        if (before.bvalid) {
            writes.front()->answered = edge;
            writes.front()->resp = before.bresp;
            writes.pop_front();
            done++;
        }
    }
    return edge;
}
}
