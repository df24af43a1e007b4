// A binary counter, its copies one and two cycles later, and a memory that gets its values.
module counter #(
  parameter int unsigned Bits = 4
) (
  input  logic            clk_i,
  output logic [Bits-1:0] count_o
);
  logic [Bits-1:0] sum;
  logic [Bits-1:0] mem[128];
  assign sum = count_o + 1'b1;
  always_ff @(posedge clk_i) begin
    count_o <= sum;
    mem[7'(sum)] <= sum;
  end
  for (genvar i = 0; i < 2; i++) begin : gen_copy
    delayed #(
      .Bits(Bits)
    ) u_delayed (
      .clk_i,
      .value_i(i == 0 ? count_o : ~count_o)
    );
  end
endmodule

module delayed #(
  parameter int unsigned Bits = 4
) (
  input logic            clk_i,
  input logic [Bits-1:0] value_i
);
  logic [Bits-1:0] stages_q[2];
  always_ff @(posedge clk_i) begin
    stages_q[0] <= value_i;
    stages_q[1] <= stages_q[0];
  end
endmodule
