/*!
 * \file rtl_device.cc
 * \brief The Verilated RTL as a device, and the C functions that Python calls. Built on demand (hardware/simulator.py).
 */
#include <cstring>
#include <memory>
#include <string>

#include "Vahcq_top.h"
#include "axi_memory.h"
#include "device.h"

namespace ahcq {
namespace {

class RtlDevice : public Device {
 public:
  RtlDevice(size_t bytes, const AxiTiming& timing) : memory_(bytes, timing), top_(&context_) {
    context_.fatalOnError(false);
    top_.rst_ni = 0;
    for (int i = 0; i < 4; ++i) Cycle();
    top_.rst_ni = 1;
    Cycle();
  }
  ~RtlDevice() override { top_.final(); }

  size_t MemoryBytes() const override { return const_cast<AxiMemory&>(memory_).bytes().size(); }

  void CopyIn(uint64_t address, const void* data, size_t bytes) override {
    std::memcpy(At(address, bytes), data, bytes);
  }
  void CopyOut(uint64_t address, void* data, size_t bytes) override { std::memcpy(data, At(address, bytes), bytes); }

  void WriteRegister(uint32_t offset, uint32_t value) override {
    top_.s_awaddr_i = static_cast<uint8_t>(offset);
    top_.s_wdata_i = value;
    top_.s_awvalid_i = top_.s_wvalid_i = top_.s_bready_i = 1;
    CycleUntil([this] { return top_.s_awready_o && top_.s_wready_o; });
    top_.s_awvalid_i = top_.s_wvalid_i = 0;
    CycleUntil([this] { return top_.s_bvalid_o; });
  }

  uint32_t ReadRegister(uint32_t offset) override {
    top_.s_araddr_i = static_cast<uint8_t>(offset);
    top_.s_arvalid_i = 1;
    CycleUntil([this] { return top_.s_arready_o; });
    top_.s_arvalid_i = 0;
    top_.s_rready_i = 1;
    uint32_t value = 0;
    CycleUntil([this, &value] {
      value = top_.s_rdata_o;
      return top_.s_rvalid_o;
    });
    top_.s_rready_i = 0;
    return value;
  }

  void Pass() override {
    for (int i = 0; i < 200 && !context_.gotError(); ++i) Cycle();
    if (context_.gotError()) throw DeviceError("an assertion of the RTL failed; its text is on standard output");
  }

  void SetFaults(uint64_t first, uint64_t end) { memory_.SetFaults(first, end); }

 private:
  uint8_t* At(uint64_t address, size_t bytes) {
    if (bytes > MemoryBytes() || address > MemoryBytes() - bytes) {
      throw DeviceError(std::to_string(bytes) + " bytes at " + std::to_string(address) +
                        " lie outside of the memory of " + std::to_string(MemoryBytes()));
    }
    return memory_.bytes().data() + address;
  }

  /*! \brief Cycles until `taken` holds before an edge, that edge included. */
  template <typename Condition>
  void CycleUntil(Condition taken) {
    for (bool found = false; !found;) {
      Settle();
      found = taken();
      Edge();
    }
  }

  void Cycle() {
    Settle();
    Edge();
  }

  void Settle() {
    const AxiToDevice& to = memory_.Drive();
    top_.m_arready_i = to.ar_ready;
    top_.m_rvalid_i = to.r_valid;
    top_.m_rid_i = to.r_id;
    top_.m_rdata_i = to.r_data;
    top_.m_rresp_i = to.r_resp;
    top_.m_rlast_i = to.r_last;
    top_.m_awready_i = to.aw_ready;
    top_.m_wready_i = to.w_ready;
    top_.m_bvalid_i = to.b_valid;
    top_.m_bresp_i = to.b_resp;
    top_.clk_i = 0;
    top_.eval();
  }

  void Edge() {
    AxiFromDevice from{};
    from.ar_valid = top_.m_arvalid_o;
    from.ar_id = top_.m_arid_o;
    from.ar_address = top_.m_araddr_o;
    from.ar_len = top_.m_arlen_o;
    from.r_ready = top_.m_rready_o;
    from.aw_valid = top_.m_awvalid_o;
    from.aw_address = top_.m_awaddr_o;
    from.aw_len = top_.m_awlen_o;
    from.w_valid = top_.m_wvalid_o;
    from.w_data = top_.m_wdata_o;
    from.w_strobe = top_.m_wstrb_o;
    from.w_last = top_.m_wlast_o;
    from.b_ready = top_.m_bready_o;
    top_.clk_i = 1;
    top_.eval();
    memory_.Clock(from);
  }

  AxiMemory memory_;
  VerilatedContext context_;
  Vahcq_top top_;
};

thread_local std::string last_error;

/*! \brief Runs `body`; an exception becomes -1 and a text for ahcq_last_error. */
template <typename Body>
int64_t Guard(Body body) {
  try {
    return static_cast<int64_t>(body());
  } catch (const std::exception& error) {
    last_error = error.what();
    return -1;
  }
}

}  // namespace
}  // namespace ahcq

extern "C" {

const char* ahcq_last_error() { return ahcq::last_error.c_str(); }

void* ahcq_create(uint64_t bytes, uint32_t latency, uint32_t bytes_per_cycle, uint32_t stall_permille, uint32_t seed) {
  ahcq::AxiTiming timing;
  timing.latency = latency;
  timing.bytes_per_cycle = bytes_per_cycle;
  timing.stall_permille = stall_permille;
  timing.seed = seed;
  return new ahcq::RtlDevice(bytes, timing);
}

void ahcq_destroy(void* device) { delete static_cast<ahcq::RtlDevice*>(device); }

int64_t ahcq_allocate(void* device, uint64_t bytes) {
  return ahcq::Guard([&] { return static_cast<ahcq::RtlDevice*>(device)->Allocate(bytes); });
}

int64_t ahcq_free_all(void* device) {
  return ahcq::Guard([&] { return static_cast<ahcq::RtlDevice*>(device)->FreeAll(), 0; });
}

int64_t ahcq_copy_in(void* device, uint64_t address, const void* data, uint64_t bytes) {
  return ahcq::Guard([&] { return static_cast<ahcq::RtlDevice*>(device)->CopyIn(address, data, bytes), 0; });
}

int64_t ahcq_copy_out(void* device, uint64_t address, void* data, uint64_t bytes) {
  return ahcq::Guard([&] { return static_cast<ahcq::RtlDevice*>(device)->CopyOut(address, data, bytes), 0; });
}

int64_t ahcq_write_register(void* device, uint32_t offset, uint32_t value) {
  return ahcq::Guard([&] { return static_cast<ahcq::RtlDevice*>(device)->WriteRegister(offset, value), 0; });
}

int64_t ahcq_read_register(void* device, uint32_t offset) {
  return ahcq::Guard([&] { return static_cast<ahcq::RtlDevice*>(device)->ReadRegister(offset); });
}

int64_t ahcq_submit(void* device, uint64_t program, uint32_t length) {
  return ahcq::Guard([&] { return static_cast<ahcq::RtlDevice*>(device)->Submit(program, length), 0; });
}

int64_t ahcq_wait(void* device, double seconds) {
  return ahcq::Guard([&] { return static_cast<ahcq::RtlDevice*>(device)->Wait(seconds); });
}

int64_t ahcq_soft_reset(void* device, double seconds) {
  return ahcq::Guard([&] { return static_cast<ahcq::RtlDevice*>(device)->SoftReset(seconds); });
}

int64_t ahcq_set_faults(void* device, uint64_t first, uint64_t end) {
  return ahcq::Guard([&] { return static_cast<ahcq::RtlDevice*>(device)->SetFaults(first, end), 0; });
}

}  // extern "C"
