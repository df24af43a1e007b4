// One write port, one read port, registered read; the word is made of groups that are written by themselves.
// What a read of the word that is written in the same cycle gives is not to be relied on: the old one in simulation, any
// in a device.
module ahcq_ram #(
  parameter int unsigned Width = 32,
  parameter int unsigned Depth = 16,
  parameter int unsigned Groups = 1
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

  for (genvar g = 0; g < Groups; g++) begin : gen_group
    logic [GroupWidth-1:0] mem[Depth];
    logic [GroupWidth-1:0] rdata_q;

    initial mem = '{default: '0};

    always_ff @(posedge clk_i) begin
      if (we_i[g]) mem[waddr_i] <= wdata_i[g*GroupWidth+:GroupWidth];
      if (re_i) rdata_q <= mem[raddr_i];
    end
    assign rdata_o[g*GroupWidth+:GroupWidth] = rdata_q;
  end
endmodule
