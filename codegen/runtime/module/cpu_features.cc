/*!
 * \file cpu_features.cc
 * \brief Reads cpuid and XCR0 on x86-64, the auxiliary vector on aarch64.
 */
#include "cpu_features.h"

#include <cstdint>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#if defined(__aarch64__)
#include <sys/auxv.h>
#endif
#endif

namespace tvm_ahcq {
namespace runtime {
namespace {

bool HasBit(uint64_t word, int bit) { return ((word >> bit) & 1) != 0; }

#if defined(__x86_64__)

/*! \brief XCR0: which register files the operating system saves at a context switch. */
uint64_t ReadXcr0() {
  uint32_t low = 0;
  uint32_t high = 0;
  // xgetbv by its mnemonic, as the _xgetbv intrinsic would need the whole file compiled with -mxsave
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

bool HasAll(uint64_t word, uint64_t mask) { return (word & mask) == mask; }

constexpr uint64_t kXcr0Avx = 0x6;      // SSE, AVX
constexpr uint64_t kXcr0Avx512 = 0xe6;  // and opmask, upper halves of zmm0-15, zmm16-31
constexpr uint64_t kXcr0Amx = 0x60000;  // tile configuration, tile data

std::vector<std::string> DetectX86() {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !HasBit(ecx, 27)) {
    return {};  // without OSXSAVE no wide register is saved, and xgetbv itself is illegal
  }
  const uint64_t xcr0 = ReadXcr0();
  const bool fma = HasBit(ecx, 12);
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return {};

  std::vector<std::string> names;
  auto add = [&names](bool present, const char* name) {
    if (present) names.emplace_back(name);
  };
  const bool avx = HasAll(xcr0, kXcr0Avx);
  add(avx && HasBit(ebx, 5), "avx2");
  add(avx && fma, "fma");
  const bool avx512 = HasAll(xcr0, kXcr0Avx512) && HasBit(ebx, 16);
  add(avx512, "avx512f");
  add(avx512 && HasBit(ebx, 30), "avx512bw");
  add(avx512 && HasBit(ebx, 31), "avx512vl");
  add(avx512 && HasBit(ebx, 17), "avx512dq");
  add(avx512 && HasBit(ecx, 11), "avx512vnni");
  const bool amx = HasAll(xcr0, kXcr0Amx) && HasBit(edx, 24);
  add(amx, "amx-tile");
  add(amx && HasBit(edx, 25), "amx-int8");
  add(amx && HasBit(edx, 22), "amx-bf16");
  const bool more = __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0;  // overwrites the words above
  add(more && avx && HasBit(eax, 4), "avxvnni");
  return names;
}

#elif defined(__aarch64__)

std::vector<std::string> DetectAarch64() {
#if defined(__linux__)
  constexpr int kAsimd = 1;      // HWCAP_ASIMD
  constexpr int kAsimdDot = 20;  // HWCAP_ASIMDDP
  const uint64_t hwcap = getauxval(AT_HWCAP);
  std::vector<std::string> names;
  if (HasBit(hwcap, kAsimd)) names.emplace_back("neon");
  if (HasBit(hwcap, kAsimdDot)) names.emplace_back("dotprod");
  return names;
#else
  return {"neon"};  // part of the architecture; nothing more can be asked portably
#endif
}

#endif

}  // namespace

std::vector<std::string> CpuFeatures() {
#if defined(__x86_64__)
  return DetectX86();
#elif defined(__aarch64__)
  return DetectAarch64();
#else
  return {};
#endif
}

bool RequestAmx() {
#if defined(__x86_64__) && defined(__linux__)
  bool tile = false;
  for (const std::string& name : CpuFeatures()) tile = tile || name == "amx-tile";
  if (!tile) return false;
  constexpr long kReqXcompPerm = 0x1023;  // ARCH_REQ_XCOMP_PERM, missing from older headers
  constexpr long kXfeatureTileData = 18;
  return syscall(SYS_arch_prctl, kReqXcompPerm, kXfeatureTileData) == 0;
#else
  return false;
#endif
}

}  // namespace runtime
}  // namespace tvm_ahcq
