// SPDX-License-Identifier: Apache-2.0
// The HBM model as SystemVerilog sees it (one call per channel and cycle), and its back door for hosts.
#include <memory>
#include <vector>

#include "hbm.h"
#include "svdpi.h"

using heddle::Answer;
using heddle::Channel;
using heddle::Request;
using heddle::Timing;

namespace {
constexpr int kCards = 8;
// By card: cards of a ring are simulated in several threads, each of which says whose turn it is.
std::vector<std::unique_ptr<Channel>> of_cards[kCards];
thread_local int current = 0;
Timing timing;

Channel& channel(int index, uint64_t bytes, uint32_t beat_bytes) {
    auto& channels = of_cards[current];
    if (index >= int(channels.size())) channels.resize(index + 1);
    auto& slot = channels[index];
    if (!slot) {
        slot = std::make_unique<Channel>(index, bytes, beat_bytes);
        slot->configure(timing);
    }
    return *slot;
}
}  // namespace

extern "C" {

// flags in: arvalid, rready, awvalid, wvalid, wlast, bready, arid, awid from bit 0 up.
// flags out: arready, rvalid, rlast, awready, wready, bvalid, rid, bid, rresp (2), bresp (2) from bit 0 up.
int heddle_hbm_tick(int index, long long bytes, int beat_bytes, int reset, int flags, long long araddr, int ar,
                    long long awaddr, int aw, const svBitVecVal* wdata, long long wstrb, svBitVecVal* rdata) {
    Channel& c = channel(index, bytes, beat_bytes);
    if (reset) {
        c.reset();
        return 0;
    }
    Request r{};
    r.arvalid = flags & 1;
    r.rready = flags >> 1 & 1;
    r.awvalid = flags >> 2 & 1;
    r.wvalid = flags >> 3 & 1;
    r.wlast = flags >> 4 & 1;
    r.bready = flags >> 5 & 1;
    r.arid = flags >> 6 & 1;
    r.awid = flags >> 7 & 1;
    r.araddr = araddr;
    r.awaddr = awaddr;
    r.arlen = ar & 0xFF;
    r.arsize = ar >> 8 & 7;
    r.arburst = ar >> 11 & 3;
    r.awlen = aw & 0xFF;
    r.awsize = aw >> 8 & 7;
    r.awburst = aw >> 11 & 3;
    r.wdata = reinterpret_cast<const uint8_t*>(wdata);
    r.wstrb = wstrb;
    const Answer& a = c.tick(r);
    if (a.rvalid) std::memcpy(rdata, a.rdata, beat_bytes);
    return a.arready | a.rvalid << 1 | a.rlast << 2 | a.awready << 3 | a.wready << 4 | a.bvalid << 5 | a.rid << 6 |
           a.bid << 7 | a.rresp << 8 | a.bresp << 10;
}

// Whose channels are meant in this thread from here on.
void heddle_hbm_card(int card) { current = card; }
// The back door.  Offsets are within the channel; callers stay inside it.
void heddle_hbm_open(int index, uint64_t bytes, uint32_t beat_bytes) { channel(index, bytes, beat_bytes); }
void heddle_hbm_write(int index, uint64_t offset, const uint8_t* data, uint64_t size) {
    std::memcpy(of_cards[current][index]->data() + offset, data, size);
}
void heddle_hbm_read(int index, uint64_t offset, uint8_t* data, uint64_t size) {
    std::memcpy(data, of_cards[current][index]->data() + offset, size);
}
void heddle_hbm_timing(const Timing* parameters) {
    timing = *parameters;
    for (auto& channels : of_cards)
        for (auto& c : channels)
            if (c) c->configure(timing);
}
// What every channel's port did at the last edge (Channel::activity), a byte each.
void heddle_hbm_activity(uint8_t* bytes) {
    const auto& channels = of_cards[current];
    for (size_t k = 0; k < channels.size(); k++) bytes[k] = channels[k]->activity();
}
// The first breach of the AXI protocol, or an empty string.
const char* heddle_hbm_violation() {
    for (auto& channels : of_cards)
        for (auto& c : channels)
            if (c && !c->violation().empty()) return c->violation().c_str();
    return "";
}
}
