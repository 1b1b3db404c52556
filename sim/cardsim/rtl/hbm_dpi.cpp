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
// Channels of every card.
using Channels = std::vector<std::unique_ptr<Channel>>;
std::vector<Channels> memories;
// Those of the card that this thread simulates.
thread_local const Channels* current = nullptr;
}  // namespace

extern "C" {

// flags in: arvalid, rready, awvalid, wvalid, wlast, bready, arid, awid from bit 0 up.
// flags out: arready, rvalid, rlast, awready, wready, bvalid, rid, bid, rresp (2), bresp (2) from bit 0 up.
int heddle_hbm_tick(int index, int beat_bytes, int reset, int flags, long long araddr, int ar,
                    long long awaddr, int aw, const svBitVecVal* wdata, long long wstrb, svBitVecVal* rdata) {
    Channel& c = *(*current)[index];
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

// The cards' memory: so many cards of so many channels each.  Stalls and errors are those of the seed, others on every card.
void heddle_hbm_open(int cards, int channels, uint64_t bytes, uint32_t beat_bytes, const Timing* timing) {
    memories.clear();
    memories.resize(cards);
    for (int card = 0; card < cards; card++) {
        Timing own = *timing;
        own.seed += uint64_t(card) << 32;
        for (int index = 0; index < channels; index++) {
            memories[card].push_back(std::make_unique<Channel>(index, bytes, beat_bytes));
            memories[card].back()->configure(own);
        }
    }
}
// The card that this thread simulates from now on.
void heddle_hbm_card(int card) { current = &memories[card]; }

// The back door.  Offsets are within the channel; callers stay inside it.
void heddle_hbm_write(int card, int index, uint64_t offset, const uint8_t* data, uint64_t size) {
    std::memcpy(memories[card][index]->data() + offset, data, size);
}
void heddle_hbm_read(int card, int index, uint64_t offset, uint8_t* data, uint64_t size) {
    std::memcpy(data, memories[card][index]->data() + offset, size);
}
// What every channel's port did at the last edge (Channel::activity), a byte each.
void heddle_hbm_activity(int card, uint8_t* bytes) {
    for (auto& c : memories[card]) *bytes++ = c->activity();
}
// The first breach of the AXI protocol, or an empty string.
const char* heddle_hbm_violation(int card) {
    for (auto& c : memories[card])
        if (!c->violation().empty()) return c->violation().c_str();
    return "";
}
}
