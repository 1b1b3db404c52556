// SPDX-License-Identifier: Apache-2.0
#include "card.h"

#include <cstring>

extern "C" void heddle_hbm_card(int card);
extern "C" const char* heddle_hbm_violation(int card);
extern "C" void heddle_hbm_activity(int card, uint8_t* bytes);

namespace heddle {

namespace {
constexpr uint32_t kResetCycles = 16;   // with the reset, and as many after it
constexpr uint32_t kPatience = 1000;    // cycles that the control port has for an answer

#if HEDDLE_CARDS > 1
// What arrives on a side, and whether the way from there is free.
template <class Wide>
void arrive(Link& in, Link& out, uint64_t cycle, CData& valid, Wide& data, CData& last, CData& ready) {
    const Link::Beat* beat = in.receive(cycle);
    valid = beat != nullptr;
    if (beat) {
        std::memcpy(data.data(), beat->data.data(), sizeof data);
        last = beat->last;
    }
    ready = out.ready();
}
#endif
}  // namespace

Card::Card(int index, uint64_t seed) : index_(index), context_(new VerilatedContext) {
    // Everything the design does not set starts at random: what is read before it is written shows.
    context_->randReset(2);
    context_->randSeed(int((seed + index) % 0x7FFFFFFF) + 1);
    context_->traceEverOn(true);
    top_ = std::make_unique<Vheddle_bench>(context_.get());
    heddle_hbm_card(index);
    top_->clk = 0;
    top_->rst_n = 0;
    top_->eval();
}

void Card::dump(uint64_t time) {
#if HEDDLE_TRACE
    if (waves_) waves_->dump(time);
#else
    (void)time;
#endif
}

// The first half of a cycle: outputs answer to the inputs.
void Card::settle() {
#if HEDDLE_CARDS > 1
    arrive(*in_[kPrevious], *out_[kPrevious], cycles_, top_->s_axis_previous_tvalid, top_->s_axis_previous_tdata,
           top_->s_axis_previous_tlast, top_->m_axis_previous_tready);
    arrive(*in_[kNext], *out_[kNext], cycles_, top_->s_axis_next_tvalid, top_->s_axis_next_tdata, top_->s_axis_next_tlast,
           top_->m_axis_next_tready);
#endif
    top_->eval();
#if HEDDLE_CARDS > 1
    const bool reset = !top_->rst_n;
    out_[kPrevious]->send(cycles_, top_->m_axis_previous_tvalid, top_->m_axis_previous_tdata.data(), top_->m_axis_previous_tlast, reset);
    out_[kNext]->send(cycles_, top_->m_axis_next_tvalid, top_->m_axis_next_tdata.data(), top_->m_axis_next_tlast, reset);
    const bool lost = (top_->s_axis_previous_tvalid && !top_->s_axis_previous_tready) || (top_->s_axis_next_tvalid && !top_->s_axis_next_tready);
    if (lost && !reset && violation_.empty())
        violation_ = "cycle " + std::to_string(cycles_) + ": a beat came from a link, and the card was not ready";
#endif
}

void Card::edge() {
    // What the edge sees, so before it; what the channels do at it, after it.
    const uint64_t word = top_->events;
    top_->clk = 1;
    top_->eval();
    if (events_.size() < events_limit_) {
        const size_t at = events_.size();
        events_.resize(at + record_bytes_);
        std::memcpy(&events_[at], &word, 8);
        heddle_hbm_activity(index_, &events_[at + 8]);
    }
    dump(cycles_ * 10);
    top_->clk = 0;
    top_->eval();
    dump(cycles_ * 10 + 5);
    cycles_++;
}

void Card::begin(Access* accesses, size_t count) {
    next_ = accesses;
    last_ = accesses + count;
    step_ = 0;
}

void Card::await() {
    awaiting_ = true;
    end_ = kLimit;
}

// A cycle of the access under way.
void Card::access() {
    Access& a = *next_;
    Vheddle_bench& t = *top_;
    const bool first = step_++ == 0;
    if (a.kind == kReset) {
        if (first) {
            t.s_axi_control_awvalid = t.s_axi_control_wvalid = t.s_axi_control_bready = 0;
            t.s_axi_control_arvalid = t.s_axi_control_rready = 0;
            violation_.clear();
            for (Link* link : out_)
                if (link) link->forgive();
        }
        t.rst_n = step_ > kResetCycles;
        tick();
        if (step_ == 2 * kResetCycles) finish(0);
    } else if (a.kind == kWrite) {
        if (first) {
            t.s_axi_control_awaddr = a.address;
            t.s_axi_control_wdata = a.data;
            t.s_axi_control_wstrb = 0xF;
            t.s_axi_control_awvalid = t.s_axi_control_wvalid = t.s_axi_control_bready = 1;
        }
        settle();
        const bool aw = t.s_axi_control_awready, w = t.s_axi_control_wready, b = t.s_axi_control_bvalid;
        const bool bad = t.s_axi_control_bresp != 0;
        edge();
        if (aw) t.s_axi_control_awvalid = 0;
        if (w) t.s_axi_control_wvalid = 0;
        if (b || step_ == kPatience) {
            t.s_axi_control_awvalid = t.s_axi_control_wvalid = t.s_axi_control_bready = 0;
            finish(b ? bad : 2);
        }
    } else {
        if (first) {
            t.s_axi_control_araddr = a.address;
            t.s_axi_control_arvalid = t.s_axi_control_rready = 1;
        }
        settle();
        const bool ar = t.s_axi_control_arready, r = t.s_axi_control_rvalid, bad = t.s_axi_control_rresp != 0;
        a.data = t.s_axi_control_rdata;
        edge();
        if (ar) t.s_axi_control_arvalid = 0;
        if (r || step_ == kPatience) {
            t.s_axi_control_arvalid = t.s_axi_control_rready = 0;
            finish(r ? bad : 2);
        }
    }
}

void Card::finish(uint32_t result) {
    next_++->result = result;
    step_ = 0;
}

void Card::over(End end) {
    awaiting_ = false;
    end_ = end;
    ended_at_ = cycles_;
}

void Card::run(uint64_t cycles, uint64_t window, bool once) {
    // Verilator and the HBM model ask whose turn it is in this thread.
    Verilated::threadContextp(context_.get());
    heddle_hbm_card(index_);
    for (Link* link : out_)
        if (link) link->begin_send(window);
    for (Link* link : in_)
        if (link) link->begin_receive(window);
    for (uint64_t k = 0; k < cycles && !(once && settled()); k++) {
        if (next_ != last_)
            access();
        else
            tick();
        if (awaiting_ && top_->irq) over(kDone);
        if (awaiting_ && context_->gotFinish()) over(kFinished);
    }
    if (awaiting_ && *violation()) over(kViolation);
}

const char* Card::violation() {
    if (const char* text = heddle_hbm_violation(index_); *text) return text;
    for (Link* link : out_)
        if (violation_.empty() && link && !link->violation().empty())
            violation_ = (link == out_[kNext] ? "link to the next card, " : "link to the previous card, ") + link->violation();
    return violation_.c_str();
}

void Card::record(uint64_t cycles, uint32_t channels) {
    record_bytes_ = 8 + channels;
    events_limit_ = cycles * record_bytes_;
    events_.clear();
    events_.shrink_to_fit();
}

bool Card::trace(const char* path) {
#if HEDDLE_TRACE
    if (path) {
        waves_ = std::make_unique<VerilatedVcdC>();
        top_->trace(waves_.get(), 99);
        waves_->open(path);
    } else if (waves_) {
        waves_->close();
        waves_.reset();
    }
    return true;
#else
    (void)path;
    return false;
#endif
}

}  // namespace heddle
