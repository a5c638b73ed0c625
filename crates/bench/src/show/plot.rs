//! The ratios as bars, an SVG that is readable on light and on dark pages.

use std::fmt::Write as _;

use crate::show::report::{Measured, Report};

/// In SVG units, which are pixels at the picture's own size.
const WIDTH: f64 = 760.0;
const LEFT: f64 = 190.0;
const RIGHT: f64 = 60.0;
const TOP: f64 = 64.0;
const BAR: f64 = 13.0;
const GAP: f64 = 9.0;
/// A bar ends here, however much longer it would be.
const MOST: f64 = 8.0;

const STYLE: &str = "
  .page { fill: #ffffff; } text { fill: #24292f; font: 13px sans-serif; } .title { font-weight: bold; font-size: 15px; }
  .grid { stroke: #d0d7de; } .equal { stroke: #57606a; stroke-width: 2; } .spread { stroke: #57606a; }
  .bar0 { fill: #0969da; } .bar1 { fill: #bc4c00; } .bar2 { fill: #1a7f37; } .bar3 { fill: #8250df; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; } text { fill: #e6edf3; } .grid { stroke: #30363d; } .equal, .spread { stroke: #8b949e; }
    .bar0 { fill: #58a6ff; } .bar1 { fill: #f0883e; } .bar2 { fill: #3fb950; } .bar3 { fill: #a371f7; }
  }
";
const COLOURS: usize = 4;

/// Draws, for each workload, our rate divided by each other contender's.
pub(crate) fn draw(report: &Report) -> String {
    let others = report.contenders.len().saturating_sub(1);
    let group = BAR * others as f64 + GAP;
    let bottom = TOP + group * report.workloads.len() as f64;
    let height = bottom + 40.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         role=\"img\" aria-label=\"innkeeper's rate divided by the others', by workload\">\n\
         <style>{STYLE}</style>\n<rect class=\"page\" width=\"{WIDTH}\" height=\"{height}\" rx=\"8\"/>\n\
         <text x=\"16\" y=\"24\" class=\"title\">innkeeper's rate divided by the others'</text>\n"
    );
    for (index, contender) in report.contenders.iter().skip(1).enumerate() {
        let (x, class) = (16.0 + 150.0 * index as f64, index % COLOURS);
        add(
            &mut svg,
            format_args!(
                "<rect class=\"bar{class}\" x=\"{x}\" y=\"36\" width=\"12\" height=\"12\"/><text x=\"{}\" y=\"47\">{}</text>\n",
                x + 18.0,
                escaped(&contender.name)
            ),
        );
    }
    for mark in 0..=MOST as u32 {
        let (x, class) = (across(mark.into()), if mark == 1 { "equal" } else { "grid" });
        add(
            &mut svg,
            format_args!(
                "<path class=\"{class}\" d=\"M{x:.1} {TOP}V{bottom}\"/>\
                 <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{mark}</text>\n",
                bottom + 18.0
            ),
        );
    }
    for (index, measured) in report.workloads.iter().enumerate() {
        bars(&mut svg, TOP + GAP / 2.0 + group * index as f64, measured);
    }
    svg.push_str("</svg>\n");
    svg
}

/// The bars of one workload from `top` down.
fn bars(svg: &mut String, top: f64, measured: &Measured) {
    let others = measured.results.len().saturating_sub(1);
    let middle = top + BAR * others as f64 / 2.0 + 4.0;
    add(
        svg,
        format_args!(
            "<text x=\"{}\" y=\"{middle:.1}\" text-anchor=\"end\">{}</text>\n",
            LEFT - 10.0,
            escaped(&measured.name)
        ),
    );
    for (index, ratio) in measured.results.iter().skip(1).map(|result| result.ratio).enumerate() {
        let Some(ratio) = ratio else { continue };
        let (y, class) = (top + BAR * index as f64, index % COLOURS);
        let end = across(ratio.median);
        add(
            svg,
            format_args!(
                "<rect class=\"bar{class}\" x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{}\"/>\
                 <path class=\"spread\" d=\"M{:.1} {:.1}H{:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" font-size=\"11\">{:.2}</text>\n",
                end - LEFT,
                BAR - 2.0,
                across(ratio.least),
                y + BAR / 2.0 - 1.0,
                across(ratio.most),
                across(ratio.most).max(end) + 5.0,
                y + BAR - 3.0,
                ratio.median
            ),
        );
    }
}

fn across(ratio: f64) -> f64 {
    LEFT + ratio.clamp(0.0, MOST) / MOST * (WIDTH - LEFT - RIGHT)
}

/// A name of the user's as text of XML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

fn add(svg: &mut String, what: std::fmt::Arguments<'_>) {
    // A string takes whatever is written to it.
    let _ = svg.write_fmt(what);
}
