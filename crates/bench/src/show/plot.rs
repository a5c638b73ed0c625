//! The ratios as bars, an SVG that is readable on light and on dark pages.
//!
//! Each colour has one meaning: a hue is a contender, the colour of the text is the measurement beside the bar
//! (spread, value), and the line at 1 has its own.

use std::fmt::Write as _;

use crate::show::report::{Description, Measured, Report};
use crate::show::table::RATIO;

/// In SVG units, which are pixels at the picture's own size.
const WIDTH: f64 = 760.0;
const LEFT: f64 = 190.0;
const RIGHT: f64 = 60.0;
const MARGIN: f64 = 16.0;
const BAR: f64 = 13.0;
const GAP: f64 = 9.0;
/// Of a line of the legend.
const ROW: f64 = 20.0;
/// A letter of the text, generously.
const LETTER: f64 = 7.2;
/// A bar is cut here, however much longer it would be.
const MOST: f64 = 8.0;

const STYLE: &str = "
  .page, .cut { fill: #ffffff; } text { fill: #24292f; font: 13px sans-serif; } .small { font-size: 11px; }
  .title { font-weight: bold; font-size: 15px; }
  .grid { stroke: #d0d7de; } .equal { stroke: #bf8700; stroke-width: 2; } .spread { stroke: #24292f; fill: none; }
";
const DARK: &str = "
    .page, .cut { fill: #0d1117; } text { fill: #e6edf3; } .grid { stroke: #30363d; } .equal { stroke: #d4a72c; }
    .spread { stroke: #e6edf3; }
";

/// Draws, for each workload, our rate divided by each other contender's.
pub(crate) fn draw(report: &Report) -> String {
    let others = report.contenders.get(1..).unwrap_or_default();
    let doubtful = report.workloads.iter().any(|measured| !measured.warnings.is_empty());
    let (legend, top) = legend(others, doubtful);
    let group = BAR * others.len() as f64 + GAP;
    let bottom = top + group * report.workloads.len() as f64;
    let height = bottom + 32.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         role=\"img\" aria-label=\"{RATIO}: innkeeper's rate divided by that of each other contender, by workload\">\n\
         <style>{STYLE}{}</style>\n<rect class=\"page\" width=\"{WIDTH}\" height=\"{height}\" rx=\"8\"/>\n\
         <text x=\"{MARGIN}\" y=\"24\" class=\"title\">{RATIO}: above 1, innkeeper is faster</text>\n{legend}",
        colours(others)
    );
    for mark in 0..=MOST as u32 {
        let (x, class) = (across(mark.into()), if mark == 1 { "equal" } else { "grid" });
        add(
            &mut svg,
            format_args!(
                "<path class=\"{class}\" d=\"M{x:.1} {top}V{bottom}\"/>\
                 <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{mark}</text>\n",
                bottom + 18.0
            ),
        );
    }
    for (index, measured) in report.workloads.iter().enumerate() {
        bars(&mut svg, top + GAP / 2.0 + group * index as f64, measured);
    }
    svg.push_str("</svg>\n");
    svg
}

/// A hue for each daemon, grey for the host, which comes last. Hues are a golden angle apart, so that neighbours differ most.
fn colours(others: &[Description]) -> String {
    let rules = |lightness: u32| {
        let mut rules = String::new();
        for (index, contender) in others.iter().enumerate() {
            let (hue, saturation) = match contender.command {
                Some(_) => ((212.0 + 137.508 * index as f64) % 360.0, 75),
                None => (212.0, 6),
            };
            add(
                &mut rules,
                format_args!("  .bar{index} {{ fill: hsl({hue:.0}, {saturation}%, {lightness}%); }}\n"),
            );
        }
        rules
    };
    format!(
        "{}  @media (prefers-color-scheme: dark) {{{DARK}{}  }}\n",
        rules(45),
        rules(62)
    )
}

/// Says what each colour and sign means; answers also where the bars may begin.
fn legend(others: &[Description], doubtful: bool) -> (String, f64) {
    let mut svg = String::new();
    let (mut x, mut y) = (MARGIN, 46.0);
    let mut place = |words: &str| {
        let width = 18.0 + LETTER * words.chars().count() as f64 + 14.0;
        if x > MARGIN && x + width > WIDTH {
            (x, y) = (MARGIN, y + ROW);
        }
        x += width;
        (x - width, y)
    };
    let mut item = |sign: &dyn Fn(f64, f64) -> String, words: &str| {
        let (x, y) = place(words);
        let sign = sign(x, y);
        add(
            &mut svg,
            format_args!(
                "{sign}<text x=\"{}\" y=\"{}\">{}</text>\n",
                x + 18.0,
                y + 5.0,
                escaped(words)
            ),
        );
    };
    for (index, contender) in others.iter().enumerate() {
        item(
            &|x, y| {
                format!(
                    "<rect class=\"bar{index}\" x=\"{x}\" y=\"{}\" width=\"12\" height=\"12\"/>",
                    y - 6.0
                )
            },
            &contender.name,
        );
    }
    item(
        &|x, y| format!("<path class=\"equal\" d=\"M{} {}v14\"/>", x + 6.0, y - 7.0),
        "equal rates",
    );
    item(
        &|x, y| format!("<path class=\"spread\" d=\"{}\"/>", whisker(x, x + 12.0, y)),
        "least to most of the rounds",
    );
    item(
        &|x, y| cut(x, y - 6.0, 12.0),
        &format!("cut at {MOST}: its number says how long it is"),
    );
    if doubtful {
        item(
            &|x, y| format!("<text x=\"{}\" y=\"{}\">*</text>", x + 3.0, y + 5.0),
            "rounds scatter or other work ran: may not repeat",
        );
    }
    (svg, y + ROW)
}

/// The bars of one workload from `top` down.
fn bars(svg: &mut String, top: f64, measured: &Measured) {
    let others = measured.results.len().saturating_sub(1);
    let middle = top + BAR * others as f64 / 2.0 + 4.0;
    let doubt = if measured.warnings.is_empty() { "" } else { " *" };
    add(
        svg,
        format_args!(
            "<text x=\"{}\" y=\"{middle:.1}\" text-anchor=\"end\">{}{doubt}</text>\n",
            LEFT - 10.0,
            escaped(&measured.name)
        ),
    );
    for (index, ratio) in measured.results.iter().skip(1).map(|result| result.ratio).enumerate() {
        let Some(ratio) = ratio else { continue };
        let y = top + BAR * index as f64;
        let end = across(ratio.median);
        add(
            svg,
            format_args!(
                "<rect class=\"bar{index}\" x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{}\"/>",
                end - LEFT,
                BAR - 2.0,
            ),
        );
        add(
            svg,
            format_args!(
                "<path class=\"spread\" d=\"{}\"/>",
                whisker(across(ratio.least), across(ratio.most), y + BAR / 2.0 - 1.0)
            ),
        );
        if ratio.median > MOST {
            svg.push_str(&cut(end - 16.0, y, BAR - 2.0));
        }
        add(
            svg,
            format_args!(
                "<text class=\"small\" x=\"{:.1}\" y=\"{:.1}\">{:.2}</text>\n",
                across(ratio.most).max(end) + 5.0,
                y + BAR - 3.0,
                ratio.median
            ),
        );
    }
}

/// A line from `left` to `right` with a stroke across each end, unless the end lies beyond the axis: there the line goes on as an arrow.
fn whisker(left: f64, right: f64, y: f64) -> String {
    let line = format!("M{left:.1} {:.1}v6m0 -3H{right:.1}", y - 3.0);
    if right < across(MOST) {
        format!("{line}m0 -3v6")
    } else {
        format!("{line}m-4 -3l4 3l-4 3")
    }
}

/// A slanting gap in a bar, with an edge on both sides.
fn cut(x: f64, y: f64, height: f64) -> String {
    let (top, bottom) = (y - 1.0, y + height + 1.0);
    format!(
        "<path class=\"cut\" d=\"M{:.1} {top:.1}h5L{:.1} {bottom:.1}h-5z\"/>\
         <path class=\"spread\" d=\"M{:.1} {top:.1}L{x:.1} {bottom:.1}M{:.1} {top:.1}L{:.1} {bottom:.1}\"/>",
        x + 4.0,
        x + 5.0,
        x + 4.0,
        x + 9.0,
        x + 5.0,
    )
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::other_work::OtherWork;
    use crate::measure::{Round, Rounds, Taken, Unit};

    /// A picture of one workload, in which all others have the rates that are given and ours is 100 in each round.
    fn picture(others: &[(&str, [f64; 3])]) -> String {
        let description = |name: &str, command: Option<&str>| Description {
            name: name.into(),
            command: command.map(Into::into),
            ring: None,
            queues: 1,
        };
        let mut contenders = vec![description("innkeeper", Some("innkeeper"))];
        contenders.extend(
            others
                .iter()
                .map(|(name, _)| description(name, (*name != "host").then_some(name))),
        );
        let mut report = Report::new(2, 3, 0.5, contenders);
        let rounds = |rates: [f64; 3]| {
            let round = |rate| Round {
                rate,
                cpu: None,
                p50: 0.0,
                p99: 0.0,
            };
            Rounds {
                all: rates.map(round).to_vec(),
                syscalls: None,
            }
        };
        let all = [[100.0; 3]].into_iter().chain(others.iter().map(|(_, rates)| *rates));
        let taken = Taken {
            rounds: all.map(rounds).collect(),
            other_work: OtherWork::default(),
        };
        report.add("getattr".into(), Unit::Operations, &taken);
        draw(&report)
    }

    #[test]
    fn a_bar_that_is_cut_has_a_gap_and_its_number() {
        let cuts = |svg: &str| svg.matches("class=\"cut\"").count();
        let legend = 1;
        let svg = picture(&[("virtiofsd", [5.0; 3])]);
        assert_eq!(cuts(&svg), legend + 1, "{svg}");
        assert!(svg.contains(">20.00</text>"), "{svg}");
        let svg = picture(&[("virtiofsd", [20.0; 3])]);
        assert_eq!(cuts(&svg), legend, "{svg}");
        assert!(svg.contains(">5.00</text>"), "{svg}");
    }

    #[test]
    fn each_contender_has_a_colour_that_the_legend_names() {
        let names = ["a", "b", "c", "d", "e", "host"];
        let svg = picture(&names.map(|name| (name, [50.0; 3])));
        let mut fills: Vec<&str> = svg
            .lines()
            .map(str::trim)
            .filter(|line| line.starts_with(".bar"))
            .map(|line| line.split_once(' ').unwrap().1)
            .collect();
        // By day and by night.
        assert_eq!(fills.len(), 2 * names.len(), "{svg}");
        fills.sort_unstable();
        fills.dedup();
        assert_eq!(fills.len(), 2 * names.len(), "{svg}");
        for (index, name) in names.iter().enumerate() {
            assert_eq!(svg.matches(&format!("<rect class=\"bar{index}\"")).count(), 2, "{svg}");
            assert!(svg.contains(&format!(">{name}</text>")), "{svg}");
        }
        assert!(
            svg.contains(">equal rates</text>") && svg.contains(">least to most of the rounds</text>"),
            "{svg}"
        );
    }

    #[test]
    fn a_workload_with_a_warning_has_a_star_that_the_legend_explains() {
        let svg = picture(&[("virtiofsd", [10.0, 50.0, 90.0])]);
        assert!(
            svg.contains(">getattr *</text>") && svg.contains("may not repeat"),
            "{svg}"
        );
        let svg = picture(&[("virtiofsd", [50.0; 3])]);
        assert!(
            svg.contains(">getattr</text>") && !svg.contains("may not repeat"),
            "{svg}"
        );
    }

    #[test]
    fn long_names_wrap_instead_of_leaving_the_page() {
        let name = "virtiofsd, thread-pool 16, cache always";
        let others: Vec<_> = (0..4).map(|_| (name, [50.0; 3])).collect();
        let svg = picture(&others);
        let ends = svg.lines().filter(|line| line.contains(name)).map(|line| {
            let x = line.rsplit_once("<text x=\"").unwrap().1.split('"').next().unwrap();
            x.parse::<f64>().unwrap() + LETTER * name.len() as f64
        });
        assert!(
            ends.clone().count() == 4 && ends.clone().all(|end| end < WIDTH),
            "{svg}"
        );
    }
}
