// SPDX-License-Identifier: Apache-2.0
// The Verilated bench (card and HBM channels) as a library: the clock loop stays in C++ until the card raises its interrupt.
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "Vheddle_bench.h"
#include "verilated.h"
#if HEDDLE_TRACE
#include "verilated_vcd_c.h"
#endif

extern "C" const char* heddle_hbm_violation();
extern "C" void heddle_hbm_activity(uint8_t* bytes);

namespace {
std::unique_ptr<VerilatedContext> context;
std::unique_ptr<Vheddle_bench> top;
uint64_t cycles = 0;
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

// One clock cycle; inputs were set while the clock was low.
void tick() {
    top->eval();
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
}
}  // namespace

extern "C" {

void heddle_open(uint64_t seed) {
    top.reset();        // before the context that it lives in
    context = std::make_unique<VerilatedContext>();
    // Everything the design does not set starts at random: what is read before it is written shows.
    context->randReset(2);
    context->randSeed(int(seed % 0x7FFFFFFF) + 1);
    context->traceEverOn(true);
    top = std::make_unique<Vheddle_bench>(context.get());
    top->clk = 0;
    top->rst_n = 0;
    top->eval();
}

void heddle_reset() {
    top->rst_n = 0;
    top->s_axi_control_awvalid = top->s_axi_control_wvalid = top->s_axi_control_bready = 0;
    top->s_axi_control_arvalid = top->s_axi_control_rready = 0;
    for (int k = 0; k < 16; k++) tick();
    top->rst_n = 1;
    for (int k = 0; k < 16; k++) tick();
}

// Control port: 0 = done, 1 = the card answered with an error, 2 = no answer.
int heddle_control_write(uint32_t address, uint32_t data) {
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

// Clock until the interrupt: 0 = it came, 1 = not within `limit` cycles, 2 = the AXI protocol was broken, 3 = $stop or assertion.
int heddle_run(uint64_t limit) {
    for (uint64_t k = 0; k < limit; k++) {
        tick();
        if (top->irq) return 0;
        if (context->gotFinish()) return 3;
        if (!(k & 255) && *heddle_hbm_violation()) return 2;
    }
    return *heddle_hbm_violation() ? 2 : 1;
}

uint64_t heddle_cycles() { return cycles; }

// Record events of at most `limit` cycles from here on, on a card of so many channels; 0 to stop.  What was recorded goes.
void heddle_events_record(uint64_t limit, uint32_t channels) {
    record_bytes = 8 + channels;
    events_limit = limit * record_bytes;
    events.clear();
    events.shrink_to_fit();
}
uint64_t heddle_events_size() { return events.size(); }
const uint8_t* heddle_events_data() { return events.data(); }

int heddle_trace(const char* path) {
#if HEDDLE_TRACE
    if (path) {
        waves = std::make_unique<VerilatedVcdC>();
        top->trace(waves.get(), 99);
        waves->open(path);
    } else if (waves) {
        waves->close();
        waves.reset();
    }
    return 1;
#else
    (void)path;
    return 0;
#endif
}
}
