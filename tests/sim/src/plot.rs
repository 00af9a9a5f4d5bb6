//! Plots of a run, as one SVG.

use std::fmt::Write as _;

use crate::figures::Figures;
use crate::run::Outcome;
use crate::scenario::Scenario;

/// Size of one panel, and its margins: left, top, right, bottom.
const PANEL: (f64, f64) = (480.0, 300.0);
const MARGIN: (f64, f64, f64, f64) = (58.0, 34.0, 16.0, 42.0);
/// Colours that people who see few of them can tell apart (Okabe and Ito), and what is drawn on white.
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

struct Panel {
    title: String,
    x: String,
    y: String,
    lines: Vec<(String, Vec<(f64, f64)>)>,
    dots: Vec<(String, Vec<(f64, f64)>)>,
    /// Vertical lines with their names.
    marks: Vec<(String, f64)>,
    /// The end of the vertical axis, if it is given.
    most: Option<f64>,
}

impl Panel {
    fn new(title: &str, x: &str, y: &str) -> Panel {
        let [title, x, y] = [title, x, y].map(str::to_owned);
        Panel { title, x, y, lines: Vec::new(), dots: Vec::new(), marks: Vec::new(), most: None }
    }

    fn draw(&self, out: &mut String, at: (f64, f64)) {
        let (left, top, right, bottom) = MARGIN;
        let (w, h) = (PANEL.0 - left - right, PANEL.1 - top - bottom);
        let points = || self.lines.iter().chain(&self.dots).flat_map(|(_, p)| p.iter().copied());
        let marks = self.marks.iter().map(|(_, x)| *x);
        let most_x = nice(points().map(|p| p.0).chain(marks).fold(0.0, f64::max));
        let most_y = self.most.unwrap_or_else(|| nice(points().map(|p| p.1).fold(0.0, f64::max)));
        let px = |x: f64| left + x / most_x * w;
        let py = |y: f64| top + h - (y / most_y).min(1.0) * h;
        let _ = write!(out, r#"<g transform="translate({:.0} {:.0})">"#, at.0, at.1);
        let _ = write!(out, r#"<text x="{left}" y="18" class="t">{}</text>"#, escape(&self.title));
        for i in 0..=4 {
            let (x, y) = (most_x * f64::from(i) / 4.0, most_y * f64::from(i) / 4.0);
            let _ = write!(
                out,
                r#"<line class="g" x1="{left}" x2="{:.1}" y1="{y:.1}" y2="{y:.1}"/><text class="l" text-anchor="end" x="{:.1}" y="{:.1}">{}</text><text class="l" text-anchor="middle" x="{:.1}" y="{:.1}">{}</text>"#,
                left + w,
                left - 6.0,
                py(y) + 4.0,
                number(y),
                px(x),
                top + h + 16.0,
                number(x),
                y = py(y),
            );
        }
        let _ = write!(
            out,
            r#"<text class="l" text-anchor="middle" x="{:.1}" y="{:.1}">{}</text><text class="l" text-anchor="middle" transform="translate(13 {:.1}) rotate(-90)">{}</text>"#,
            left + w / 2.0,
            top + h + 34.0,
            escape(&self.x),
            top + h / 2.0,
            escape(&self.y)
        );
        for (i, (name, x)) in self.marks.iter().enumerate() {
            let _ = write!(
                out,
                r#"<line class="m" x1="{x:.1}" x2="{x:.1}" y1="{top}" y2="{:.1}"/><text class="l" text-anchor="end" x="{:.1}" y="{:.1}">{}</text>"#,
                top + h,
                px(*x) - 4.0,
                top + h - 8.0 - 14.0 * i as f64,
                escape(name),
                x = px(*x)
            );
        }
        for (i, (_, points)) in self.lines.iter().enumerate() {
            let path: Vec<String> =
                points.iter().map(|(x, y)| format!("{:.1},{:.1}", px(*x), py(*y))).collect();
            let colour = COLOURS[i % COLOURS.len()];
            let _ = write!(out, r#"<polyline stroke="{colour}" class="c" points="{}"/>"#, path.join(" "));
        }
        for (i, (_, points)) in self.dots.iter().enumerate() {
            let colour = COLOURS[i % COLOURS.len()];
            for (x, y) in points {
                let _ = write!(
                    out,
                    r#"<circle cx="{:.1}" cy="{:.1}" r="2.5" fill="{colour}" fill-opacity=".55"/>"#,
                    px(*x),
                    py(*y)
                );
            }
        }
        // Where there are dots, they begin at the left.
        let from = if self.dots.is_empty() { left + 10.0 } else { left + w - 110.0 };
        let names: Vec<&String> = self.lines.iter().chain(&self.dots).map(|(n, _)| n).collect();
        for (i, name) in names.into_iter().enumerate().filter(|(_, n)| !n.is_empty()) {
            let y = top + 14.0 + 15.0 * i as f64;
            let colour = COLOURS[i % COLOURS.len()];
            let _ = write!(
                out,
                r#"<rect x="{:.1}" y="{:.1}" width="10" height="10" fill="{colour}"/><text class="l" x="{:.1}" y="{:.1}">{}</text>"#,
                from,
                y - 9.0,
                from + 15.0,
                y,
                escape(name)
            );
        }
        out.push_str("</g>");
    }
}

/// The least of 1, 2, 4, 5, 8 times a power of ten that is not below.
fn nice(x: f64) -> f64 {
    if x <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(x.log10().floor());
    let found = [1.0, 2.0, 4.0, 5.0, 8.0, 10.0].into_iter().map(|m| m * power).find(|m| *m >= x * 0.999);
    found.unwrap_or(10.0 * power)
}

fn number(x: f64) -> String {
    match x {
        _ if x == 0.0 => "0".to_owned(),
        _ if x >= 100.0 => format!("{x:.0}"),
        _ if x >= 1.0 => format!("{x:.1}").trim_end_matches('0').trim_end_matches('.').to_owned(),
        _ => format!("{x:.3}").trim_end_matches('0').trim_end_matches('.').to_owned(),
    }
}

fn escape(s: &str) -> String {
    s.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Share of `all` that is at most each value.
fn cumulated(mut of: Vec<f64>, all: usize) -> Vec<(f64, f64)> {
    of.sort_by(f64::total_cmp);
    let share = |i: usize| 100.0 * i as f64 / all.max(1) as f64;
    let mut points = vec![(0.0, 0.0)];
    // A step at each value, or at a thousand of them.
    let every = of.len().div_ceil(1000).max(1);
    for (i, x) in of.iter().enumerate().filter(|(i, _)| i % every == 0 || i + 1 == of.len()) {
        points.push((*x, share(i)));
        points.push((*x, share(i + 1)));
    }
    points
}

/// Completion times (or times to sound), the origin's share, stalls, and contribution against service.
#[must_use]
pub fn plot(scenario: &Scenario, out: &Outcome) -> String {
    let mut panels = Vec::new();
    if let Some(c) = &out.figures.completion {
        let mut p = Panel::new("Completion", "seconds after joining", "% of peers that have everything");
        p.most = Some(100.0);
        p.lines.push((
            "IceShare".to_owned(),
            cumulated(out.done.iter().flatten().copied().collect(), out.done.len()),
        ));
        if let Some(l) = &out.local {
            let times = l.done.iter().flatten().copied().collect();
            p.lines.push(("local rarest-first".to_owned(), cumulated(times, l.done.len())));
        }
        p.marks.push((format!("fluid bound {:.1} s", c.bound), c.bound));
        panels.push(p);
    }
    let size = out.figures.bytes as f64;
    let title = format!("The origin's share ({:.2} copies in all)", out.figures.origin.copies);
    let mut p = Panel::new(&title, "seconds", "% of all bytes sent so far");
    let share =
        out.samples.iter().filter(|s| s.all > 0).map(|s| (s.at, 100.0 * s.origin as f64 / s.all as f64));
    p.lines.push((String::new(), share.collect()));
    p.most = Some(100.0);
    panels.push(p);
    if out.figures.playback.is_some() {
        let mut p = Panel::new("Stalls", "% of play time stalled", "% of players");
        let stalls: Vec<f64> = out.stalls.iter().map(|s| 100.0 * s).collect();
        let all = stalls.len();
        p.lines.push((String::new(), cumulated(stalls, all)));
        panels.push(p);
        let mut p = Panel::new("Players that ran dry", "seconds", "players");
        p.lines.push((String::new(), out.samples.iter().map(|s| (s.at, s.dry as f64)).collect()));
        panels.push(p);
    } else {
        let mut p = Panel::new("Uploads in use", "seconds", "%");
        p.most = Some(100.0);
        let course = &out.figures.course;
        p.lines.push(("of the crowd".to_owned(), course.iter().map(|u| (u.to, 100.0 * u.crowd)).collect()));
        p.lines.push(("of the origin".to_owned(), course.iter().map(|u| (u.to, 100.0 * u.origin)).collect()));
        panels.push(p);
    }
    let mut p = Panel::new("Contribution and service", "copies given", "seconds until it had everything");
    for (i, class) in scenario.crowd.class.iter().enumerate() {
        let of = out.gave.iter().filter(|g| g.0 == i);
        let points: Vec<_> = of.filter_map(|(_, sent, done)| Some((*sent as f64 / size, (*done)?))).collect();
        p.dots.push((class.name.clone(), points));
    }
    if p.dots.iter().any(|(_, d)| !d.is_empty()) {
        panels.push(p);
    }
    let title = format!("{} · N = {} · seed {}", scenario.name, scenario.crowd.peers, scenario.seed);
    sheet(&title, &panels)
}

/// Of broadcasts to crowds of several sizes: the delay beside the bound, and what the source sent.
#[must_use]
pub fn delays(figures: &[Figures]) -> String {
    let mut sizes: Vec<_> = figures.iter().filter_map(|f| Some((f, f.listening.as_ref()?))).collect();
    sizes.sort_by_key(|(f, _)| f.listeners);
    let name = sizes.first().map_or(String::new(), |(f, _)| format!("{} · seed {}", f.scenario, f.seed));
    let line = |of: &dyn Fn(&crate::figures::Listening) -> f64| -> Vec<(f64, f64)> {
        sizes.iter().map(|(f, l)| ((f.listeners.max(1) as f64).log10(), of(l))).collect()
    };
    let mut p = Panel::new("Delay that the swarm adds", "listeners, as a power of ten", "milliseconds");
    p.lines.push(("95 % of pages".to_owned(), line(&|l| 1000.0 * l.delay[1])));
    p.lines.push(("2.4 times the bound".to_owned(), line(&|l| 2400.0 * l.bound[2])));
    p.lines.push(("half of the pages".to_owned(), line(&|l| 1000.0 * l.delay[0])));
    p.lines.push(("snowball bound".to_owned(), line(&|l| 1000.0 * l.bound[2])));
    let mut q = Panel::new("What the source sends", "listeners, as a power of ten", "copies");
    q.lines.push((String::new(), line(&|l| l.copies)));
    sheet(&name, &[p, q])
}

/// Panels in two columns.
fn sheet(title: &str, panels: &[Panel]) -> String {
    let rows = panels.len().div_ceil(2);
    let (width, height) = (2.0 * PANEL.0, rows as f64 * PANEL.1 + 30.0);
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0}" height="{height:.0}" viewBox="0 0 {width:.0} {height:.0}" font-family="sans-serif"><style>.t{{font-size:14px;font-weight:bold}}.l{{font-size:11px;fill:#333}}.g{{stroke:#ddd}}.m{{stroke:#888;stroke-dasharray:4 3}}.c{{fill:none;stroke-width:1.8}}</style><rect width="100%" height="100%" fill="white"/><text x="58" y="22" font-size="15">{}</text>"#,
        escape(title)
    );
    for (i, p) in panels.iter().enumerate() {
        let at = ((i % 2) as f64 * PANEL.0, 30.0 + (i / 2) as f64 * PANEL.1);
        p.draw(&mut svg, at);
    }
    svg.push_str("</svg>\n");
    svg
}
