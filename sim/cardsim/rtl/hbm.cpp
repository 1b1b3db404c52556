// SPDX-License-Identifier: Apache-2.0
#include "hbm.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace heddle {

namespace {
constexpr size_t kOutstanding = 64;     // bursts a port may have under way, reads and writes each
constexpr uint32_t kOkay = 0, kSlaveError = 2, kDecodeError = 3;
}  // namespace

Channel::Channel(int index, uint64_t bytes, uint32_t beat_bytes)
    : index_(index), bytes_(bytes), beat_(beat_bytes) {
    // Reserved, not allocated: only pages that are written take memory.
    void* map = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) {
        std::perror("heddle: cannot reserve HBM");
        std::abort();
    }
    data_ = static_cast<uint8_t*>(map);
    configure(timing_);
}

Channel::~Channel() { munmap(data_, bytes_); }

void Channel::configure(const Timing& timing) {
    timing_ = timing;
    ns_per_cycle_ = 1000.0 / timing.clock_mhz;
    random_ = timing.seed * 0x9E3779B97F4A7C15ull + index_ + 1;
    // Channels are refreshed at different times.
    next_refresh_ = cycle_ * ns_per_cycle_ + timing.refresh_every_ns * (index_ % 8 + 1) / 8;
}

void Channel::reset() {
    reads_.clear();
    writes_.clear();
    replies_.clear();
    read_beat_ = write_beat_ = 0;
    activity_ = 0;
    answer_ = Answer{};
    held_ = Request{};
    violation_.clear();
}

bool Channel::stalled() {
    random_ ^= random_ << 13;
    random_ ^= random_ >> 7;
    random_ ^= random_ << 17;
    return timing_.stall_permille && random_ % 1000 < timing_.stall_permille;
}

void Channel::fail(const std::string& text) {
    if (violation_.empty())
        violation_ = "channel " + std::to_string(index_) + ", cycle " + std::to_string(cycle_) + ": " + text;
}

// The channel is busy for this burst; returns the cycle at which the channel has served it.
uint64_t Channel::occupy(uint64_t offset, uint64_t bytes, bool write) {
    double now = std::max(cycle_ * ns_per_cycle_, busy_until_);
    while (next_refresh_ <= now) {
        if (next_refresh_ + timing_.refresh_ns > now) now = next_refresh_ + timing_.refresh_ns;
        next_refresh_ += timing_.refresh_every_ns;
    }
    double time = bytes / timing_.peak_gbps;
    if (offset != next_offset_) time = std::max(time, timing_.random_ns);
    if (write != last_write_) time += timing_.turnaround_ns;
    next_offset_ = offset + bytes;
    last_write_ = write;
    busy_until_ = now + time;
    return static_cast<uint64_t>(now / ns_per_cycle_);
}

void Channel::check_address(const char* what, uint64_t address, uint32_t len, uint32_t size, uint32_t burst) {
    char text[160];
    if ((1u << size) != beat_ || burst != 1 || address % beat_) {
        std::snprintf(text, sizeof text, "%s burst at %#llx is not of whole beats (size %u, burst %u)", what,
                      (unsigned long long)address, size, burst);
        fail(text);
    }
    if (address / 4096 != (address + uint64_t(len + 1) * beat_ - 1) / 4096) {
        std::snprintf(text, sizeof text, "%s burst at %#llx of %u beats crosses 4 KiB", what,
                      (unsigned long long)address, len + 1);
        fail(text);
    }
}

// A request that was not taken must stay as it is.
void Channel::check(const Request& r) {
    const Request& h = held_;
    if (h.arvalid && (!r.arvalid || r.araddr != h.araddr || r.arlen != h.arlen || r.arid != h.arid ||
                      r.arsize != h.arsize || r.arburst != h.arburst))
        fail("AR changed before it was taken");
    if (h.awvalid && (!r.awvalid || r.awaddr != h.awaddr || r.awlen != h.awlen || r.awid != h.awid ||
                      r.awsize != h.awsize || r.awburst != h.awburst))
        fail("AW changed before it was taken");
    if (h.wvalid && (!r.wvalid || r.wlast != h.wlast || r.wstrb != h.wstrb || std::memcmp(r.wdata, held_wdata_, beat_)))
        fail("W changed before it was taken");
}

const Answer& Channel::tick(const Request& r) {
    check(r);
    Answer& a = answer_;
    // What happened at this edge, with the answers of the cycle before.
    const bool ar = r.arvalid && a.arready, rd = a.rvalid && r.rready;
    const bool aw = r.awvalid && a.awready, wr = r.wvalid && a.wready, b = a.bvalid && r.bready;
    activity_ = rd | wr << 1 | (!a.rvalid && !reads_.empty()) << 2 | (a.rvalid && !rd) << 3;
    held_ = r;
    held_.arvalid = r.arvalid && !ar;
    held_.awvalid = r.awvalid && !aw;
    held_.wvalid = r.wvalid && !wr;
    if (held_.wvalid) std::memcpy(held_wdata_, r.wdata, beat_);

    const uint64_t base = uint64_t(index_) * bytes_;
    if (ar) {
        check_address("read", r.araddr, r.arlen, r.arsize, r.arburst);
        const uint64_t size = uint64_t(r.arlen + 1) * beat_, offset = r.araddr - base;
        const bool outside = r.araddr < base || offset + size > bytes_;
        const uint64_t start = outside ? cycle_ : occupy(offset, size, false);
        reads_.push_back({offset, start + uint64_t(timing_.latency_ns / ns_per_cycle_), r.arlen + 1, r.arid, outside});
    }
    if (rd && ++read_beat_ == reads_.front().beats) {
        reads_.pop_front();
        read_beat_ = 0;
    }
    if (aw) {
        check_address("write", r.awaddr, r.awlen, r.awsize, r.awburst);
        const uint64_t size = uint64_t(r.awlen + 1) * beat_, offset = r.awaddr - base;
        writes_.push_back({offset, 0, r.awlen + 1, r.awid, r.awaddr < base || offset + size > bytes_});
    }
    if (wr) {
        if (writes_.empty()) {
            fail("W without AW");       // the model takes no data ahead of its address
        } else {
            Burst& burst = writes_.front();
            const uint64_t at = burst.offset + uint64_t(write_beat_) * beat_;
            if (!burst.error)
                for (uint32_t k = 0; k < beat_; k++)
                    if (r.wstrb >> k & 1) data_[at + k] = r.wdata[k];
            const bool last = ++write_beat_ == burst.beats;
            if (last != r.wlast) fail("WLAST is not at the last beat");
            if (last) {
                const uint64_t size = uint64_t(burst.beats) * beat_;
                uint32_t resp = burst.error ? kDecodeError : kOkay;
                if (timing_.write_error_at - burst.offset < size) resp = kSlaveError;
                if (!burst.error) occupy(burst.offset, size, true);
                const double done = std::max(busy_until_, cycle_ * ns_per_cycle_) + timing_.write_latency_ns;
                replies_.push_back({uint64_t(done / ns_per_cycle_), burst.id, resp});
                writes_.pop_front();
                write_beat_ = 0;
            }
        }
    }
    if (b) replies_.pop_front();

    cycle_++;
    a.arready = reads_.size() < kOutstanding && !stalled();
    a.awready = writes_.size() + replies_.size() < kOutstanding && !stalled();
    a.wready = !writes_.empty() && !stalled();
    // An answer that is not taken stays; a new one comes when its time has come.
    if (!a.rvalid || rd) {
        a.rvalid = false;
        if (!reads_.empty()) {
            const Burst& burst = reads_.front();
            // Beats of one burst follow at the channel's own rate.
            const double due = burst.ready + double(read_beat_) * beat_ / timing_.peak_gbps / ns_per_cycle_;
            if (cycle_ >= due && !stalled()) {
                const uint64_t at = burst.offset + uint64_t(read_beat_) * beat_;
                a.rvalid = true;
                a.rid = burst.id;
                a.rlast = read_beat_ + 1 == burst.beats;
                a.rresp = burst.error ? kDecodeError
                        : timing_.read_error_at >= at && timing_.read_error_at < at + beat_ ? kSlaveError : kOkay;
                if (burst.error) std::memset(a.rdata, 0, beat_);
                else std::memcpy(a.rdata, data_ + at, beat_);
            }
        }
    }
    if (!a.bvalid || b) {
        a.bvalid = !replies_.empty() && cycle_ >= replies_.front().ready && !stalled();
        if (a.bvalid) {
            a.bid = replies_.front().id;
            a.bresp = replies_.front().resp;
        }
    }
    return a;
}

}  // namespace heddle
