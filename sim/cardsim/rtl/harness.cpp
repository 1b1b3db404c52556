// SPDX-License-Identifier: Apache-2.0
// The Verilated bench (card and HBM channels) as a library: the clock loop stays in C++ until a card raises its interrupt.
//
// A ring has HEDDLE_CARDS instances of the bench, with links between them.  All are at the same cycle between calls; within `heddle_run` each goes
// on alone for as many cycles as a link takes, on several threads: what is sent meanwhile arrives later anyway.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "Vheddle_bench.h"
#include "hbm.h"
#include "link.h"
#include "verilated.h"
#if HEDDLE_TRACE
#include "verilated_vcd_c.h"
#endif

extern "C" const char* heddle_hbm_violation();
extern "C" void heddle_hbm_activity(uint8_t* bytes);
extern "C" void heddle_hbm_card(int card);

namespace {
constexpr int kCards = HEDDLE_CARDS;
constexpr uint64_t kNever = ~0ull;

struct Card {
    std::unique_ptr<VerilatedContext> context;
    std::unique_ptr<Vheddle_bench> top;
    uint64_t cycles = 0;
    bool interrupted = false;       // in a run, since it began
    // Events: of each recorded cycle the card's word, then a byte of each channel.
    std::vector<uint8_t> events;
    size_t record_bytes = 0, events_limit = 0;      // 0: nothing is recorded
#if HEDDLE_TRACE
    std::unique_ptr<VerilatedVcdC> waves;
#endif
    void dump(uint64_t time) {
#if HEDDLE_TRACE
        if (waves) waves->dump(time);
#else
        (void)time;
#endif
    }
    void tick(int index);
};

Card cards[kCards];
int selected = 0;
// From card c to the next (2c) and to the one before it (2c + 1).
std::vector<heddle::Link> links;
uint64_t window = 1;
int threads = 1;

#if HEDDLE_CARDS > 1
heddle::Link& to_next(int card) { return links[2 * card]; }
heddle::Link& to_previous(int card) { return links[2 * card + 1]; }

template <class Data>
void receive(heddle::Link& link, uint64_t cycle, CData& valid, Data& data, CData& last) {
    bool ends = false;
    valid = link.receive(cycle, reinterpret_cast<uint8_t*>(&data), &ends);
    last = ends;
}
#endif

// One clock cycle; inputs were set while the clock was low.
void Card::tick(int index) {
    heddle_hbm_card(index);
#if HEDDLE_CARDS > 1
    heddle::Link &ahead = to_next(index), &back = to_previous(index);
    receive(to_next((index + kCards - 1) % kCards), cycles, top->s_axis_previous_tvalid, top->s_axis_previous_tdata,
            top->s_axis_previous_tlast);
    receive(to_previous((index + 1) % kCards), cycles, top->s_axis_next_tvalid, top->s_axis_next_tdata, top->s_axis_next_tlast);
    top->m_axis_next_tready = ahead.ready();
    top->m_axis_previous_tready = back.ready();
#endif
    top->eval();
#if HEDDLE_CARDS > 1
    ahead.send(cycles, top->m_axis_next_tvalid, reinterpret_cast<const uint8_t*>(&top->m_axis_next_tdata), top->m_axis_next_tlast);
    back.send(cycles, top->m_axis_previous_tvalid, reinterpret_cast<const uint8_t*>(&top->m_axis_previous_tdata),
              top->m_axis_previous_tlast);
#endif
    // What the edge sees, so before it; what the channels do at it, after it.
    const uint64_t word = top->events;
    top->clk = 1;
    top->eval();
    if (events.size() < events_limit) {
        const size_t at = events.size();
        events.resize(at + record_bytes);
        std::memcpy(&events[at], &word, 8);
        heddle_hbm_activity(&events[at + 8]);
    }
    dump(cycles * 10);
    top->clk = 0;
    top->eval();
    dump(cycles * 10 + 5);
    cycles++;
    interrupted |= bool(top->irq);
}

void settle() {
    for (heddle::Link& link : links) link.settle();
}

// All cards, one cycle.
void tick() {
    for (int k = 0; k < kCards; k++) cards[k].tick(k);
    settle();
}

// All threads wait here for each other.
class Barrier {
public:
    explicit Barrier(int count) : count_(count) {}
    void wait() {
        const unsigned turn = turn_.load();
        if (waiting_.fetch_add(1) + 1 == count_) {
            waiting_ = 0;
            turn_ = turn + 1;
        } else {
            while (turn_.load() == turn) std::this_thread::yield();
        }
    }

private:
    const int count_;
    std::atomic<int> waiting_{0};
    std::atomic<unsigned> turn_{0};
};

bool finished() {
    return std::any_of(cards, cards + kCards, [](const Card& card) { return card.context->gotFinish(); });
}
}  // namespace

extern "C" {

// Make the cards, and the links between them.
void heddle_open(uint64_t seed, const heddle::LinkTiming* timing, double clock_mhz, uint32_t beat_bytes, uint32_t workers) {
    links.clear();
    for (int k = 0; k < 2 * kCards && kCards > 1; k++) links.emplace_back(*timing, clock_mhz, beat_bytes, k);
    window = links.empty() ? 1 : links[0].latency();
    threads = std::max(1, std::min<int>(workers, kCards));
    for (int k = 0; k < kCards; k++) {
        Card& card = cards[k];
        card.top.reset();       // before the context that it lives in
        card.context = std::make_unique<VerilatedContext>();
        // Everything the design does not set starts at random: what is read before it is written shows.
        card.context->randReset(2);
        card.context->randSeed(int((seed + 7919 * k) % 0x7FFFFFFF) + 1);
        card.context->traceEverOn(true);
        heddle_hbm_card(k);
        card.top = std::make_unique<Vheddle_bench>(card.context.get());
        card.top->clk = 0;
        card.top->rst_n = 0;
        card.top->eval();
    }
    selected = 0;
    heddle_hbm_card(0);
}

// Whom the calls below mean, and those of the HBM's back door.
void heddle_select(int card) {
    selected = card;
    heddle_hbm_card(card);
}

// Nothing passes between a card and the next from that cycle on.
void heddle_cut(int card, uint64_t cycle) {
#if HEDDLE_CARDS > 1
    to_next(card).cut(cycle);
    to_previous((card + 1) % kCards).cut(cycle);
#else
    (void)card, (void)cycle;
#endif
}

void heddle_reset() {
    Vheddle_bench* top = cards[selected].top.get();
    top->rst_n = 0;
    top->s_axi_control_awvalid = top->s_axi_control_wvalid = top->s_axi_control_bready = 0;
    top->s_axi_control_arvalid = top->s_axi_control_rready = 0;
    for (int k = 0; k < 16; k++) tick();
    top->rst_n = 1;
    for (int k = 0; k < 16; k++) tick();
}

// Control port: 0 = done, 1 = the card answered with an error, 2 = no answer.
int heddle_control_write(uint32_t address, uint32_t data) {
    Vheddle_bench* top = cards[selected].top.get();
    top->s_axi_control_awaddr = address;
    top->s_axi_control_wdata = data;
    top->s_axi_control_wstrb = 0xF;
    top->s_axi_control_awvalid = top->s_axi_control_wvalid = 1;
    top->s_axi_control_bready = 1;
    int result = 2;
    for (int k = 0; k < 1000 && result == 2; k++) {
        top->eval();
        const bool aw = top->s_axi_control_awready, w = top->s_axi_control_wready, b = top->s_axi_control_bvalid;
        const int resp = top->s_axi_control_bresp;
        tick();
        if (aw) top->s_axi_control_awvalid = 0;
        if (w) top->s_axi_control_wvalid = 0;
        if (b) result = resp != 0;
    }
    top->s_axi_control_awvalid = top->s_axi_control_wvalid = top->s_axi_control_bready = 0;
    return result;
}

int heddle_control_read(uint32_t address, uint32_t* data) {
    Vheddle_bench* top = cards[selected].top.get();
    top->s_axi_control_araddr = address;
    top->s_axi_control_arvalid = top->s_axi_control_rready = 1;
    int result = 2;
    for (int k = 0; k < 1000 && result == 2; k++) {
        top->eval();
        const bool ar = top->s_axi_control_arready, r = top->s_axi_control_rvalid;
        const int resp = top->s_axi_control_rresp;
        *data = top->s_axi_control_rdata;
        tick();
        if (ar) top->s_axi_control_arvalid = 0;
        if (r) result = resp != 0;
    }
    top->s_axi_control_arvalid = top->s_axi_control_rready = 0;
    return result;
}

// Set the control ports of all cards of `mask` to write the same at the same cycle: how a ring is started.
void heddle_start(uint32_t mask, uint32_t address, uint32_t data) {
    for (int k = 0; k < kCards; k++) {
        if (!(mask >> k & 1)) continue;
        Vheddle_bench* top = cards[k].top.get();
        cards[k].interrupted = false;
        top->s_axi_control_awaddr = address;
        top->s_axi_control_wdata = data;
        top->s_axi_control_wstrb = 0xF;
        top->s_axi_control_awvalid = top->s_axi_control_wvalid = top->s_axi_control_bready = 1;
    }
    tick();     // the port takes address and data in the cycle that offers them
    for (int k = 0; k < kCards; k++) cards[k].top->s_axi_control_awvalid = cards[k].top->s_axi_control_wvalid = 0;
    for (int n = 0; n < 8; n++) tick();
    for (int k = 0; k < kCards; k++) cards[k].top->s_axi_control_bready = 0;
}

// Which cards have raised their interrupt since they were started.
uint32_t heddle_interrupted() {
    uint32_t mask = 0;
    for (int k = 0; k < kCards; k++) mask |= uint32_t(cards[k].interrupted) << k;
    return mask;
}

// Clock until the interrupts of all cards of `mask`: 0 = they came, 1 = not within `limit` cycles, 2 = the AXI protocol was broken, 3 = $stop or
// assertion.
int heddle_run(uint64_t limit, uint32_t mask) {
    if (kCards == 1) {
        Card& card = cards[0];
        for (uint64_t k = 0; k < limit; k++) {
            card.tick(0);
            if (card.top->irq) return 0;
            if (card.context->gotFinish()) return 3;
            if (!(k & 255) && *heddle_hbm_violation()) return 2;
        }
        return *heddle_hbm_violation() ? 2 : 1;
    }
    const uint64_t end = cards[0].cycles + limit;
    Barrier barrier(threads);
    std::atomic<bool> done{false};
    int result = 1;
    auto work = [&](int worker) {
        while (true) {
            const uint64_t count = std::min(window, end - cards[worker].cycles);
            for (int k = worker; k < kCards; k += threads)
                for (uint64_t n = 0; n < count && !cards[k].context->gotFinish(); n++) cards[k].tick(k);
            barrier.wait();
            if (worker == 0) {
                settle();
                if (finished()) result = 3;
                else if (*heddle_hbm_violation()) result = 2;
                else if ((heddle_interrupted() & mask) == mask) result = 0;
                done = result != 1 || cards[0].cycles >= end;
            }
            barrier.wait();
            if (done) return;
        }
    };
    std::vector<std::thread> others;
    for (int k = 1; k < threads; k++) others.emplace_back(work, k);
    work(0);
    for (std::thread& other : others) other.join();
    heddle_hbm_card(selected);
    return result;
}

uint64_t heddle_cycles() { return cards[0].cycles; }

// Record events of at most `limit` cycles from here on, on a card of so many channels; 0 to stop.  What was recorded goes.
void heddle_events_record(uint64_t limit, uint32_t channels) {
    Card& card = cards[selected];
    card.record_bytes = 8 + channels;
    card.events_limit = limit * card.record_bytes;
    card.events.clear();
    card.events.shrink_to_fit();
}
uint64_t heddle_events_size() { return cards[selected].events.size(); }
const uint8_t* heddle_events_data() { return cards[selected].events.data(); }

int heddle_trace(const char* path) {
#if HEDDLE_TRACE
    Card& card = cards[selected];
    if (path) {
        card.waves = std::make_unique<VerilatedVcdC>();
        card.top->trace(card.waves.get(), 99);
        card.waves->open(path);
    } else if (card.waves) {
        card.waves->close();
        card.waves.reset();
    }
    return 1;
#else
    (void)path;
    return 0;
#endif
}
}
