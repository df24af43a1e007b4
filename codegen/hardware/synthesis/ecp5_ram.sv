// ahcq_ram.sv in block RAM of the ECP5. Deep words are cut into slices, each as wide as a block of that depth: so no
// multiplexer stands behind the blocks, for one block in nine more.
module ahcq_ram #(
  parameter int unsigned Width = 32,
  parameter int unsigned Depth = 16,
  parameter int unsigned Groups = 1,
  parameter int unsigned BlockBits = 16384,  // of a block, without parity
  parameter int unsigned ParityDepth = 2048  // of the deepest block with parity
) (
  input  logic                     clk_i,
  input  logic [Groups-1:0]        we_i,
  input  logic [$clog2(Depth)-1:0] waddr_i,
  input  logic [Width-1:0]         wdata_i,
  input  logic                     re_i,
  input  logic [$clog2(Depth)-1:0] raddr_i,
  output logic [Width-1:0]         rdata_o
);
  localparam int unsigned GroupWidth = Width / Groups;
  localparam int unsigned Slice = (Depth <= ParityDepth) ? GroupWidth : (Depth < BlockBits) ? BlockBits / Depth : 1;

  for (genvar g = 0; g < Groups; g++) begin : gen_group
    for (genvar s = 0; s < GroupWidth; s += Slice) begin : gen_slice
      localparam int unsigned Bits = (GroupWidth - s < Slice) ? GroupWidth - s : Slice;
      logic [Bits-1:0] mem[Depth];
      logic [Bits-1:0] rdata_q;

      initial mem = '{default: '0};

      always_ff @(posedge clk_i) begin
        if (we_i[g]) mem[waddr_i] <= wdata_i[g*GroupWidth+s+:Bits];
        if (re_i) rdata_q <= mem[raddr_i];
      end
      assign rdata_o[g*GroupWidth+s+:Bits] = rdata_q;
    end
  end
endmodule
