// Greatest of the lanes, two at a time: one register a level, $clog2(Count) cycles.
module ahcq_tree #(
  parameter int unsigned Count = 4,  // a power of two, at least 2
  parameter int unsigned Width = 18
) (
  input  logic                         clk_i,
  input  logic [Count-1:0][Width-1:0]  data_i,
  output logic [Width-1:0]             data_o
);
  localparam int unsigned Half = Count / 2;

  logic [Half-1:0][Width-1:0] data_q;
  always_ff @(posedge clk_i) begin
    for (int unsigned i = 0; i < Half; i++) begin
      data_q[i] <= $signed(data_i[2*i]) < $signed(data_i[2*i+1]) ? data_i[2*i+1] : data_i[2*i];
    end
  end
  if (Count == 2) begin : gen_last
    assign data_o = data_q[0];
  end else begin : gen_level
    ahcq_tree #(
      .Count(Half),
      .Width(Width)
    ) u_tree (
      .clk_i,
      .data_i(data_q),
      .data_o(data_o)
    );
  end
endmodule
