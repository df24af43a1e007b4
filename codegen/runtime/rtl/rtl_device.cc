/*!
 * \file rtl_device.cc
 * \brief The Verilated RTL as a device, in a library of its own that hardware/simulator.py builds on demand.
 */
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "../device/device_options.h"
#include "Vahcq_top.h"
#include "axi_memory.h"
#if VM_TRACE
#include "verilated_saif_c.h"
#endif

namespace ahcq {
namespace {

/*! \brief Bytes of a beat: those of the port, which is little-endian as all machines that this is built for. */
constexpr size_t kBeat = sizeof(Vahcq_top::m_rdata_i);
static_assert(kBeat <= sizeof(AxiData), "a beat has at most 32 bytes");

class RtlDevice : public Device {
 public:
  RtlDevice(size_t bytes, const AxiTiming& timing) : memory_(bytes, kBeat, timing), top_(&context_) {
    context_.fatalOnError(false);
    top_.rst_ni = 0;
    for (int i = 0; i < 4; ++i) Cycle();
    top_.rst_ni = 1;
    Cycle();
  }
  ~RtlDevice() override {
    top_.final();
#if VM_TRACE
    toggles_.close();
#endif
  }

  std::string Name() const override { return "rtl"; }
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

  void SetFaults(uint64_t first, uint64_t end) override { memory_.SetFaults(first, end); }

#if VM_TRACE
  /*! \brief Counts toggles of signals from here on; they are written when the device is closed. */
  void CountToggles(const std::string& path) {
    context_.traceEverOn(true);
    top_.trace(&toggles_, 99);
    toggles_.open(path.c_str());
    toggles_.dump(context_.time());
  }
#endif

 private:
  uint8_t* At(uint64_t address, size_t bytes) {
    if (bytes > MemoryBytes() || address > MemoryBytes() - bytes) {
      throw DeviceError(Name() + ": " + std::to_string(bytes) + " bytes at " + std::to_string(address) +
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
    std::memcpy(&top_.m_rdata_i, to.r_data.data(), kBeat);
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
    std::memcpy(from.w_data.data(), &top_.m_wdata_o, kBeat);
    from.w_strobe = top_.m_wstrb_o;
    from.w_last = top_.m_wlast_o;
    from.b_ready = top_.m_bready_o;
    top_.clk_i = 1;
    top_.eval();
#if VM_TRACE
    context_.timeInc(1);
    if (toggles_.isOpen()) toggles_.dump(context_.time());
#endif
    memory_.Clock(from);
  }

  AxiMemory memory_;
  VerilatedContext context_;
  Vahcq_top top_;
#if VM_TRACE
  VerilatedSaifC toggles_;
#endif
};

}  // namespace
}  // namespace ahcq

extern "C" {

AHCQ_PUBLIC uint32_t ahcq_device_abi() { return ahcq::kDeviceAbi; }

/*! \brief DeviceOpener; options `memory`, `latency`, `width`, `stalls` (permille), `seed`; `toggles` if it counts them.
 */
AHCQ_PUBLIC ahcq::Device* ahcq_open_device(const char* text, char* error, size_t error_bytes) {
  try {
    std::vector<std::string> names = {"memory", "latency", "width", "stalls", "seed"};
#if VM_TRACE
    names.push_back("toggles");
#endif
    const ahcq::DeviceOptions options(text, names);
    ahcq::AxiTiming timing;
    timing.latency = static_cast<uint32_t>(options.Number("latency", timing.latency, 0, 1 << 20));
    timing.bytes_per_cycle = static_cast<uint32_t>(options.Number("width", 0, 0, ahcq::kBeat));
    timing.stall_permille = static_cast<uint32_t>(options.Number("stalls", timing.stall_permille, 0, 999));
    timing.seed = static_cast<uint32_t>(options.Number("seed", timing.seed));
    auto device = std::make_unique<ahcq::RtlDevice>(options.Number("memory", 1 << 26, 32, ahcq::kMaxMemory), timing);
#if VM_TRACE
    if (options.Has("toggles")) device->CountToggles(options.Text("toggles"));
#endif
    return device.release();
  } catch (const std::exception& failure) {
    std::snprintf(error, error_bytes, "%s", failure.what());
    return nullptr;
  }
}

}  // extern "C"
