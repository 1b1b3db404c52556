// SPDX-License-Identifier: Apache-2.0
#include "hbm.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace heddle {

namespace {
constexpr size_t kOutstanding = 64;     // bursts a port may have under way, reads and writes each
constexpr uint64_t kPiece = 512;        // longest burst of the channel's own port: 16 beats of 32 bytes (AXI3)
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
    buffer_.clear();
    served_ = served_beats_ = read_beat_ = 0;
    // What was sent whole lands, answered or not.
    for (const auto* queue : {&replies_, &writes_})
        for (const Write& write : *queue) commit(write);
    filling_.clear();
    writes_.clear();
    replies_.clear();
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

// The channel is busy with these bytes; returns when it begins with them.  What could have begun before the last edge has done so.
double Channel::occupy(uint64_t offset, uint64_t bytes, bool write) {
    const double from = now() - ns_per_cycle_;
    // A refresh waits for the piece under way, and then takes its whole time.
    while (next_refresh_ <= std::max(from, busy_until_)) {
        busy_until_ = std::max(busy_until_, next_refresh_) + timing_.refresh_ns;
        next_refresh_ += timing_.refresh_every_ns;
    }
    const double transfer = bytes / timing_.peak_gbps;
    double start = std::max(from, busy_until_);
    if (offset != next_offset_) start += std::max(0.0, timing_.random_ns - transfer);
    if (write != last_write_) start += timing_.turnaround_ns;
    next_offset_ = offset + bytes;
    last_write_ = write;
    busy_until_ = start + transfer;
    return start;
}

// Serve what the channel begins with before the next edge.
void Channel::serve() {
    while (busy_until_ < now() && (serve_write() || serve_read())) {
    }
}

bool Channel::serve_write() {
    if (writes_.empty()) return false;
    Write write = std::move(writes_.front());
    writes_.pop_front();
    write.due = now() - ns_per_cycle_ + timing_.write_latency_ns;
    if (!write.error) {
        for (uint64_t at = 0; at < write.data.size(); at += kPiece)
            occupy(write.offset + at, std::min<uint64_t>(kPiece, write.data.size() - at), true);
        write.due = busy_until_ + timing_.write_latency_ns;
    }
    replies_.push_back(std::move(write));
    return true;
}

bool Channel::serve_read() {
    if (served_ == reads_.size()) return false;
    const Read& read = reads_[served_];
    const uint64_t offset = read.offset + uint64_t(served_beats_) * beat_;
    const uint32_t beats = std::min(read.beats - served_beats_, uint32_t(kPiece / beat_));
    // A piece needs room for all that it brings.
    if (!buffer_.empty() && (buffer_.size() + beats) * beat_ > timing_.buffer_bytes) return false;
    const double start = read.error ? now() - ns_per_cycle_ : occupy(offset, uint64_t(beats) * beat_, false);
    for (uint32_t k = 0; k < beats; k++) {
        Beat beat{start + timing_.latency_ns + k * (beat_ / timing_.peak_gbps), {}};
        if (!read.error) std::memcpy(beat.data.data(), data_ + offset + uint64_t(k) * beat_, beat_);
        buffer_.push_back(beat);
    }
    served_beats_ += beats;
    if (served_beats_ == read.beats) {
        served_++;
        served_beats_ = 0;
    }
    return true;
}

// The bytes of a write come into memory.
void Channel::commit(const Write& write) {
    if (write.error) return;
    for (size_t k = 0; k < write.data.size(); k++)
        if (write.strobes[k / 8] >> k % 8 & 1) data_[write.offset + k] = write.data[k];
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
        reads_.push_back({offset, r.arlen + 1, r.arid, r.araddr < base || offset + size > bytes_});
    }
    if (rd) {
        buffer_.pop_front();
        if (++read_beat_ == reads_.front().beats) {
            reads_.pop_front();
            read_beat_ = 0;
            served_--;
        }
    }
    if (aw) {
        check_address("write", r.awaddr, r.awlen, r.awsize, r.awburst);
        const uint64_t size = uint64_t(r.awlen + 1) * beat_, offset = r.awaddr - base;
        filling_.push_back({offset, 0, r.awlen + 1, r.awid, r.awaddr < base || offset + size > bytes_, {}, {}});
    }
    if (wr) {
        if (filling_.empty()) {
            fail("W without AW");       // the model takes no data ahead of its address
        } else {
            Write& write = filling_.front();
            write.data.insert(write.data.end(), r.wdata, r.wdata + beat_);
            for (uint32_t k = 0; k < beat_; k += 8) write.strobes.push_back(r.wstrb >> k & 0xFF);
            const bool last = write.data.size() == uint64_t(write.beats) * beat_;
            if (last != r.wlast) fail("WLAST is not at the last beat");
            if (last) {
                writes_.push_back(std::move(write));
                filling_.pop_front();
            }
        }
    }
    if (b) replies_.pop_front();

    cycle_++;
    serve();
    a.arready = reads_.size() < kOutstanding && !stalled();
    a.awready = filling_.size() + writes_.size() + replies_.size() < kOutstanding && !stalled();
    a.wready = !filling_.empty() && !stalled();
    // An answer that is not taken stays; a new one comes when its time has come.
    if (!a.rvalid || rd) {
        a.rvalid = !buffer_.empty() && now() >= buffer_.front().due && !stalled();
        if (a.rvalid) {
            const Read& read = reads_.front();
            const uint64_t at = read.offset + uint64_t(read_beat_) * beat_;
            a.rid = read.id;
            a.rlast = read_beat_ + 1 == read.beats;
            a.rresp = read.error ? kDecodeError
                    : timing_.read_error_at >= at && timing_.read_error_at < at + beat_ ? kSlaveError : kOkay;
            std::memcpy(a.rdata, buffer_.front().data.data(), beat_);
        }
    }
    if (!a.bvalid || b) {
        a.bvalid = !replies_.empty() && now() >= replies_.front().due && !stalled();
        if (a.bvalid) {
            const Write& write = replies_.front();
            commit(write);
            a.bid = write.id;
            a.bresp = write.error ? kDecodeError
                    : timing_.write_error_at - write.offset < write.data.size() ? kSlaveError : kOkay;
        }
    }
    return a;
}

}  // namespace heddle
