// The accelerator with five pins, so that it can be placed and routed without a board: a chain of registers drives every
// input of `ahcq_top`, another one samples every output. All of its paths then run from register to register, as they
// would behind a memory controller; the chains cost 339 registers. What it does on a board is of no use.
module ahcq_serial #(
  parameter int unsigned Dim = 4,
  parameter int unsigned Lanes = 2,
  parameter int unsigned BusChunks = 1,
  parameter int unsigned ActDepth = 4096,
  parameter int unsigned WgtDepth = 2048,
  parameter int unsigned AccDepth = 1024,
  parameter int unsigned VecDepth = 512,
  parameter int unsigned OutDepth = 256,
  parameter int unsigned LgtDepth = 2048,
  parameter int unsigned StatDepth = 64,
  parameter int unsigned Hash = 0
) (
  input  logic clk_i,
  input  logic rst_ni,
  input  logic sample_i,
  input  logic bit_i,
  output logic bit_o
);
  localparam int unsigned Inputs = 64 + 64 * BusChunks;
  localparam int unsigned Outputs = 139 + 72 * BusChunks;

  logic m_arready, m_rvalid, m_rid, m_rlast, m_awready, m_wready, m_bvalid, s_awvalid, s_wvalid, s_bready, s_arvalid,
        s_rready, irq, m_arvalid, m_arid, m_rready, m_awvalid, m_wvalid, m_wlast, m_bready, s_awready, s_wready,
        s_bvalid, s_arready, s_rvalid;
  logic [64*BusChunks-1:0] m_rdata, m_wdata;
  logic [8*BusChunks-1:0] m_wstrb;
  logic [1:0] m_rresp, m_bresp, m_arburst, m_awburst, s_bresp, s_rresp;
  logic [7:0] s_awaddr, s_araddr, m_arlen, m_awlen;
  logic [31:0] s_wdata, m_araddr, m_awaddr, s_rdata;
  logic [2:0] m_arsize, m_awsize;
  logic [Inputs-1:0] input_q;
  logic [Outputs-1:0] outputs, output_q;
  logic sample_q, rst_nq;

  assign {
    m_arready, m_rvalid, m_rid, m_rdata, m_rresp, m_rlast, m_awready, m_wready, m_bvalid, m_bresp, s_awvalid,
    s_awaddr, s_wvalid, s_wdata, s_bready, s_arvalid, s_araddr, s_rready
  } = input_q;
  assign outputs = {
    irq, m_arvalid, m_arid, m_araddr, m_arlen, m_arsize, m_arburst, m_rready, m_awvalid, m_awaddr, m_awlen,
    m_awsize, m_awburst, m_wvalid, m_wdata, m_wstrb, m_wlast, m_bready, s_awready, s_wready, s_bvalid,
    s_bresp, s_arready, s_rvalid, s_rdata, s_rresp
  };
  always_ff @(posedge clk_i) begin
    rst_nq <= rst_ni;
    sample_q <= sample_i;
    input_q <= {input_q[Inputs-2:0], bit_i};
    output_q <= sample_q ? outputs : {output_q[Outputs-2:0], 1'b0};
  end
  assign bit_o = output_q[Outputs-1];

  ahcq_top #(
    .Dim      (Dim),
    .Lanes    (Lanes),
    .BusChunks(BusChunks),
    .ActDepth (ActDepth),
    .WgtDepth (WgtDepth),
    .AccDepth (AccDepth),
    .VecDepth (VecDepth),
    .OutDepth (OutDepth),
    .LgtDepth (LgtDepth),
    .StatDepth(StatDepth),
    .Hash     (Hash)
  ) u_top (
    .clk_i,
    .rst_ni     (rst_nq),
    .irq_o      (irq),
    .m_arvalid_o(m_arvalid),
    .m_arready_i(m_arready),
    .m_arid_o   (m_arid),
    .m_araddr_o (m_araddr),
    .m_arlen_o  (m_arlen),
    .m_arsize_o (m_arsize),
    .m_arburst_o(m_arburst),
    .m_rvalid_i (m_rvalid),
    .m_rready_o (m_rready),
    .m_rid_i    (m_rid),
    .m_rdata_i  (m_rdata),
    .m_rresp_i  (m_rresp),
    .m_rlast_i  (m_rlast),
    .m_awvalid_o(m_awvalid),
    .m_awready_i(m_awready),
    .m_awaddr_o (m_awaddr),
    .m_awlen_o  (m_awlen),
    .m_awsize_o (m_awsize),
    .m_awburst_o(m_awburst),
    .m_wvalid_o (m_wvalid),
    .m_wready_i (m_wready),
    .m_wdata_o  (m_wdata),
    .m_wstrb_o  (m_wstrb),
    .m_wlast_o  (m_wlast),
    .m_bvalid_i (m_bvalid),
    .m_bready_o (m_bready),
    .m_bresp_i  (m_bresp),
    .s_awvalid_i(s_awvalid),
    .s_awready_o(s_awready),
    .s_awaddr_i (s_awaddr),
    .s_wvalid_i (s_wvalid),
    .s_wready_o (s_wready),
    .s_wdata_i  (s_wdata),
    .s_bvalid_o (s_bvalid),
    .s_bready_i (s_bready),
    .s_bresp_o  (s_bresp),
    .s_arvalid_i(s_arvalid),
    .s_arready_o(s_arready),
    .s_araddr_i (s_araddr),
    .s_rvalid_o (s_rvalid),
    .s_rready_i (s_rready),
    .s_rdata_o  (s_rdata),
    .s_rresp_o  (s_rresp)
  );
endmodule
