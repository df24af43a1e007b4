// Scratchpads of codes: `act` and `wgt`, which LOAD fills and GEMM reads, `out`, which STORE reads. The vector unit writes
// codes to `act` and `out`, and goes before LOAD.
module ahcq_scratchpads
  import ahcq_isa_pkg::*, ahcq_vector_pkg::*;
#(
  parameter int unsigned Dim = 4,
  parameter int unsigned Lanes = 2,
  parameter int unsigned BusChunks = 1,
  parameter int unsigned ActDepth = 4096,
  parameter int unsigned WgtDepth = 2048,
  parameter int unsigned OutDepth = 256,
  parameter int unsigned CodeWidth = CodeBits * Dim
) (
  input  logic                           clk_i,
  input  logic                           act_valid_i,    // of the vector unit: LOAD has to wait
  input  logic                           out_valid_i,
  input  slot_t                          code_slot_i,
  input  logic [Lanes-1:0][CodeBits-1:0] code_i,
  input  write_t                         write_i,        // by LOAD
  input  logic [64*BusChunks-1:0]        write_data_i,
  input  logic                           act_re_i,
  input  logic [$clog2(ActDepth)-1:0]    act_addr_i,
  output logic [CodeWidth-1:0]           act_data_o,
  input  logic                           wgt_re_i,
  input  logic [$clog2(WgtDepth)-1:0]    wgt_addr_i,
  output logic [CodeWidth-1:0]           wgt_data_o,
  input  logic                           out_re_i,
  input  logic [$clog2(OutDepth)-1:0]    out_addr_i,
  output logic [CodeWidth-1:0]           out_data_o
);
  localparam int unsigned Subs = Dim / Lanes;
  localparam int unsigned LaneCodes = CodeBits * Lanes;
  localparam int unsigned GroupWidth = LaneCodes < 64 ? LaneCodes : 64;
  localparam int unsigned ActGroups = CodeWidth / GroupWidth;
  localparam int unsigned LoadWidth = CodeWidth < 64 * BusChunks ? CodeWidth : 64 * BusChunks;
  localparam int unsigned WgtGroups = CodeWidth / LoadWidth;

  logic [ActGroups-1:0] code_groups, load_groups;
  assign code_groups = ActGroups'((1 << (LaneCodes / GroupWidth)) - 1)
      << (code_slot_i.sub * 4'(LaneCodes / GroupWidth));
  assign load_groups = ActGroups'((1 << (LoadWidth / GroupWidth)) - 1)
      << (write_i.part * 5'(LoadWidth / GroupWidth));
  ahcq_ram #(
    .Width (CodeWidth),
    .Depth (ActDepth),
    .Groups(ActGroups)
  ) u_act (
    .clk_i,
    .we_i   (act_valid_i ? code_groups : write_i.act ? load_groups : '0),
    .waddr_i(act_valid_i ? code_slot_i.dst[$clog2(ActDepth)-1:0] : write_i.word[$clog2(ActDepth)-1:0]),
    .wdata_i(act_valid_i ? {Subs{code_i}} : {(CodeWidth / LoadWidth) {write_data_i[LoadWidth-1:0]}}),
    .re_i   (act_re_i),
    .raddr_i(act_addr_i),
    .rdata_o(act_data_o)
  );
  ahcq_ram #(
    .Width (CodeWidth),
    .Depth (WgtDepth),
    .Groups(WgtGroups)
  ) u_wgt (
    .clk_i,
    .we_i   (write_i.wgt ? WgtGroups'(1) << write_i.part : '0),
    .waddr_i(write_i.word[$clog2(WgtDepth)-1:0]),
    .wdata_i({(CodeWidth / LoadWidth) {write_data_i[LoadWidth-1:0]}}),
    .re_i   (wgt_re_i),
    .raddr_i(wgt_addr_i),
    .rdata_o(wgt_data_o)
  );
  ahcq_ram #(
    .Width (CodeWidth),
    .Depth (OutDepth),
    .Groups(ActGroups)
  ) u_out (
    .clk_i,
    .we_i   (out_valid_i ? code_groups : '0),
    .waddr_i(code_slot_i.dst[$clog2(OutDepth)-1:0]),
    .wdata_i({Subs{code_i}}),
    .re_i   (out_re_i),
    .raddr_i(out_addr_i),
    .rdata_o(out_data_o)
  );
endmodule
