/*!
 * \file axi_memory.h
 * \brief Memory behind an AXI4 port: latency, width, random stalls, order between ids, bus errors.
 */
#ifndef AHCQ_AXI_MEMORY_H_
#define AHCQ_AXI_MEMORY_H_

#include <array>
#include <cstdint>
#include <deque>
#include <random>
#include <vector>

namespace ahcq {

/*! \brief How the memory behaves. */
struct AxiTiming {
  uint32_t latency = 40;        /*!< cycles from address to first beat, and from last beat to answer */
  uint32_t bytes_per_cycle = 0; /*!< of each direction, a divisor of the bytes of a beat; 0: all of them */
  uint32_t stall_permille = 0;  /*!< chance of each handshake to be refused for a cycle */
  uint32_t seed = 1;
};

/*! \brief What a beat carries; of a narrower bus its first bytes. */
using AxiData = std::array<uint8_t, 32>;

/*! \brief Signals into the device. */
struct AxiToDevice {
  bool ar_ready = false, r_valid = false, r_last = false, aw_ready = false, w_ready = false, b_valid = false;
  uint8_t r_id = 0, r_resp = 0, b_resp = 0;
  AxiData r_data{};
};

/*! \brief Signals out of the device, as they stand before the clock edge. */
struct AxiFromDevice {
  bool ar_valid, r_ready, aw_valid, w_valid, w_last, b_ready;
  uint8_t ar_id, ar_len, aw_len;
  uint32_t ar_address, aw_address, w_strobe;
  AxiData w_data;
};

class AxiMemory {
 public:
  AxiMemory(size_t bytes, size_t beat, const AxiTiming& timing)
      : bytes_(bytes),
        beat_(beat),
        beat_cycles_(timing.bytes_per_cycle ? beat / timing.bytes_per_cycle : 1),
        timing_(timing),
        random_(timing.seed) {}

  std::vector<uint8_t>& bytes() { return bytes_; }
  /*! \brief Accesses to [first, end) answer with an error. */
  void SetFaults(uint64_t first, uint64_t end) { fault_first_ = first, fault_end_ = end; }
  /*! \brief What the device sees before the next edge. */
  const AxiToDevice& Drive();
  /*! \brief The edge: takes the handshakes of this cycle. */
  void Clock(const AxiFromDevice& from);

 private:
  struct Burst {
    uint32_t address;
    uint32_t beats;
    uint64_t due;
  };
  bool Stall() { return timing_.stall_permille != 0 && random_() % 1000 < timing_.stall_permille; }
  bool Faulty(uint64_t address) const;
  void DriveRead();

  std::vector<uint8_t> bytes_;
  size_t beat_;           // bytes
  uint64_t beat_cycles_;  // that one takes
  AxiTiming timing_;
  std::mt19937 random_;
  uint64_t fault_first_ = 0, fault_end_ = 0;
  uint64_t now_ = 0;
  uint64_t read_free_ = 0, write_free_ = 0;  // first cycle with bandwidth for a beat
  std::deque<Burst> reads_[2];
  int current_ = -1;  // id of the burst that is being answered
  std::deque<Burst> writes_;
  std::deque<std::pair<uint64_t, uint8_t>> answers_;
  uint8_t write_resp_ = 0;
  AxiToDevice out_;
};

}  // namespace ahcq

#endif  // AHCQ_AXI_MEMORY_H_
