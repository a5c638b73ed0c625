//! Draws the page caches as an SVG that is readable on light and on dark pages.

use std::fmt::Write as _;

use super::dax::Sample;

/// In SVG units, which are pixels at the picture's own size.
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 345.0;
const PANEL_WIDTH: f64 = 300.0;
const PANEL_HEIGHT: f64 = 200.0;
const TOP: f64 = 60.0;
const LEFTS: [f64; 2] = [70.0, 430.0];

/// MiB between two marks of an axis.
const MARK: usize = 128;

const STYLE: &str = "
  .page { fill: #ffffff; } text { fill: #24292f; font: 13px sans-serif; } .title { font-weight: bold; font-size: 15px; }
  .grid { stroke: #d0d7de; } .axis { stroke: #57606a; } .line { fill: none; stroke-width: 2.5; }
  .guest { stroke: #0969da; } .host { stroke: #bc4c00; stroke-dasharray: 7 4; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; } text { fill: #e6edf3; } .grid { stroke: #30363d; } .axis { stroke: #8b949e; }
    .guest { stroke: #58a6ff; } .host { stroke: #f0883e; }
  }
";

type Line = (&'static str, fn(&Sample) -> f64);
const LINES: [Line; 2] = [("host", |sample| sample.host), ("guest", |sample| sample.guest)];

/// Two panels, without and with DAX; both axes reach to `size` MiB.
pub(super) fn draw(without: &[Sample], with: &[Sample], size: f64) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         role=\"img\" aria-label=\"Page cache of guest and host while the guest reads a file, without and with DAX\">\n\
         <style>{STYLE}</style>\n<rect class=\"page\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"8\"/>\n"
    );
    for (left, title, samples) in [(LEFTS[0], "without DAX", without), (LEFTS[1], "with DAX", with)] {
        panel(&mut svg, left, title, samples, size);
    }
    let middle = TOP + PANEL_HEIGHT / 2.0;
    text(
        &mut svg,
        (18.0, middle),
        &format!("text-anchor=\"middle\" transform=\"rotate(-90 18 {middle})\""),
        "in memory (MiB)",
    );
    let below = HEIGHT - 16.0;
    for (x, class, words) in [
        (190.0, "guest", "guest: growth of its page cache"),
        (450.0, "host", "host: pages of the file"),
    ] {
        let y = below - 4.0;
        add(
            &mut svg,
            format_args!("<path class=\"line {class}\" d=\"M{x} {y}h30\"/>\n"),
        );
        text(&mut svg, (x + 38.0, below), "", words);
    }
    svg.push_str("</svg>\n");
    svg
}

fn panel(svg: &mut String, left: f64, title: &str, samples: &[Sample], size: f64) {
    let bottom = TOP + PANEL_HEIGHT;
    let x = |mebibytes: f64| left + mebibytes / size * PANEL_WIDTH;
    let y = |mebibytes: f64| bottom - mebibytes / size * PANEL_HEIGHT;
    let centre = "text-anchor=\"middle\"";
    let middle = left + PANEL_WIDTH / 2.0;
    text(svg, (middle, TOP - 22.0), &format!("{centre} class=\"title\""), title);
    for mark in (0..=size as usize).step_by(MARK) {
        let label = mark.to_string();
        let (across, up) = (x(mark as f64), y(mark as f64));
        add(
            svg,
            format_args!("<path class=\"grid\" d=\"M{left} {up:.1}h{PANEL_WIDTH}\"/>\n"),
        );
        text(svg, (left - 8.0, up + 4.0), "text-anchor=\"end\"", &label);
        text(svg, (across, bottom + 18.0), centre, &label);
    }
    add(
        svg,
        format_args!("<path class=\"axis\" fill=\"none\" d=\"M{left} {TOP}V{bottom}h{PANEL_WIDTH}\"/>\n"),
    );
    text(svg, (middle, bottom + 36.0), centre, "read of the file (MiB)");
    for (class, value) in LINES {
        let points: Vec<String> = samples
            .iter()
            .map(|sample| format!("{:.1},{:.1}", x(sample.read), y(value(sample).max(0.0))))
            .collect();
        add(
            svg,
            format_args!("<polyline class=\"line {class}\" points=\"{}\"/>\n", points.join(" ")),
        );
    }
}

fn text(svg: &mut String, (x, y): (f64, f64), attributes: &str, words: &str) {
    add(
        svg,
        format_args!("<text x=\"{x}\" y=\"{y}\" {attributes}>{words}</text>\n"),
    );
}

fn add(svg: &mut String, what: std::fmt::Arguments<'_>) {
    // A string takes whatever is written to it.
    let _ = svg.write_fmt(what);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_lie_where_the_axes_say() {
        let sample = |read, guest, host| Sample { read, guest, host };
        let svg = draw(
            &[sample(0.0, 0.0, 0.0), sample(512.0, 256.0, 512.0)],
            &[sample(0.0, 0.0, 0.0), sample(512.0, -1.0, 512.0)],
            512.0,
        );
        // Right edge and half the height, right edge and full height; below nothing is nothing.
        assert!(
            svg.contains("class=\"line guest\" points=\"70.0,260.0 370.0,160.0\""),
            "{svg}"
        );
        assert!(
            svg.contains("class=\"line host\" points=\"70.0,260.0 370.0,60.0\""),
            "{svg}"
        );
        assert!(
            svg.contains("class=\"line guest\" points=\"430.0,260.0 730.0,260.0\""),
            "{svg}"
        );
    }
}
