// Delays element e of a word by e cycles.
module ahcq_skew #(
  parameter int unsigned Width = 4,
  parameter int unsigned Count = 4
) (
  input  logic                          clk_i,
  input  logic [Count-1:0][Width-1:0]   data_i,
  output logic [Count-1:0][Width-1:0]   data_o
);
  assign data_o[0] = data_i[0];
  for (genvar e = 1; e < Count; e++) begin : gen_delay
    logic [e-1:0][Width-1:0] delay_q;
    always_ff @(posedge clk_i) begin
      delay_q[0] <= data_i[e];
      for (int unsigned i = 1; i < e; i++) delay_q[i] <= delay_q[i-1];
    end
    assign data_o[e] = delay_q[e-1];
  end
endmodule
