// SPDX-License-Identifier: Apache-2.0
// One pseudo-channel of HBM behind an AXI4 port: content, timing, protocol checks.
//
// Timing (all parameters, see Timing).  The channel serves one piece (512 bytes, or what is left of a burst) after another.  A piece
// occupies it for bytes / peak rate, but at least `random_ns` if it does not continue where the last one ended; changing between reads and
// writes costs `turnaround_ns`; every `refresh_every_ns` the channel pauses for `refresh_ns`, when the piece under way is through.  Reads are
// served in order, ahead of the port as far as `buffer_bytes` hold what was read; their first beat comes `latency_ns` after the channel began with
// it.  A write is served when its data are there, before reads that still wait, and answered `write_latency_ns` later.  The port moves at most one
// beat a cycle each way.  Sources of the defaults are in docs/simulators.md.
//
// A read sees a write that was answered before the channel served it, and no other: AXI orders the two no better, and a card that forgets to wait for
// the answer shall not be right by luck.
#pragma once
#include <array>
#include <cstdint>
#include <cstring>
#include <deque>
#include <string>
#include <vector>

namespace heddle {

struct Timing {
    double clock_mhz = 100;
    double peak_gbps = 14.375;          // bytes per ns while streaming
    double random_ns = 12.28;           // least time of a piece elsewhere
    double latency_ns = 128;            // read latency
    double buffer_bytes = 16384;        // what the channel reads ahead of the port
    double write_latency_ns = 80;       // last write beat to response
    double turnaround_ns = 10;          // read to write or back
    double refresh_every_ns = 3900;
    double refresh_ns = 346;            // 14.375 GB/s less this is the measured 13.1 GB/s
    uint32_t stall_permille = 0;        // random stalls of every handshake
    uint64_t seed = 1;
    uint64_t read_error_at = ~0ull;     // byte offset whose reads answer SLVERR
    uint64_t write_error_at = ~0ull;    // byte offset whose writes answer SLVERR
};

// What the port drives (from the card) and what the model answers, for one cycle.
struct Request {
    bool arvalid, rready, awvalid, wvalid, wlast, bready;
    uint64_t araddr, awaddr;
    uint32_t arid, arlen, arsize, arburst, awid, awlen, awsize, awburst;
    const uint8_t* wdata;
    uint64_t wstrb;
};
struct Answer {
    bool arready = false, rvalid = false, rlast = false, awready = false, wready = false, bvalid = false;
    uint32_t rid = 0, rresp = 0, bid = 0, bresp = 0;
    uint8_t rdata[128] = {};
};

class Channel {
public:
    Channel(int index, uint64_t bytes, uint32_t beat_bytes);
    ~Channel();
    Channel(const Channel&) = delete;
    Channel& operator=(const Channel&) = delete;

    void configure(const Timing& timing);
    void reset();
    // One rising edge: what the card drove before it, and the answer until the next edge.
    const Answer& tick(const Request& request);

    uint8_t* data() { return data_; }
    uint64_t bytes() const { return bytes_; }
    const std::string& violation() const { return violation_; }
    // What the port did at the last edge: bit 0 a beat was read, 1 written, 2 reads were under way and none was
    // offered, 3 one was offered and not taken.
    uint8_t activity() const { return activity_; }

private:
    struct Read { uint64_t offset; uint32_t beats, id; bool error; };
    struct Beat { double due; std::array<uint8_t, 128> data; };
    struct Write { uint64_t offset; double due; uint32_t beats, id; bool error; std::vector<uint8_t> data, strobes; };

    void check(const Request& request);
    void check_address(const char* what, uint64_t address, uint32_t len, uint32_t size, uint32_t burst);
    double now() const { return cycle_ * ns_per_cycle_; }
    void serve();
    bool serve_write();
    bool serve_read();
    double occupy(uint64_t offset, uint64_t bytes, bool write);
    void commit(const Write& write);
    bool stalled();
    void fail(const std::string& text);

    const int index_;
    const uint64_t bytes_;
    const uint32_t beat_;
    uint8_t* data_;
    Timing timing_;
    double ns_per_cycle_ = 10;
    uint64_t cycle_ = 0, random_ = 1;
    double busy_until_ = 0, next_refresh_ = 0;
    uint64_t next_offset_ = ~0ull;
    bool last_write_ = false;
    // Bursts that the port has asked for and not received; the first `served_` of them and `served_beats_` of the next are in the buffer.
    std::deque<Read> reads_;
    size_t served_ = 0;
    uint32_t served_beats_ = 0, read_beat_ = 0;
    std::deque<Beat> buffer_;
    uint8_t activity_ = 0;
    // Addresses that wait for data, writes that wait for the channel, writes that wait for their answer.
    std::deque<Write> filling_, writes_, replies_;
    Answer answer_;
    Request held_{};
    uint8_t held_wdata_[128] = {};
    std::string violation_;
};

}  // namespace heddle
