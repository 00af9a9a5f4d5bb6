//! The demo's view: a pure function of a [`Snapshot`].

use std::time::Duration;

use indicatif::DecimalBytes;
use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;

use super::snapshot::{Flow, Host, Snapshot, ratio};
use crate::escape::printable;

const HELD: Color = Color::Cyan;
const PARTLY: Color = Color::Blue;
const ORIGIN: Color = Color::Yellow;
const SOFT: Style = Style::new().fg(Color::DarkGray);
const STRONG: Style = Style::new().add_modifier(Modifier::BOLD);

/// Columns left of the page bars, and right of them.
const NAME: u16 = 9;
const FIGURES: u16 = 34;
/// Width of a column of the matrix.
const CELL: u16 = 8;

/// Draws the whole screen.
pub(crate) fn draw(frame: &mut Frame<'_>, s: &Snapshot) {
    let area = frame.area();
    View { snapshot: s }.render(area, frame.buffer_mut());
}

struct View<'a> {
    snapshot: &'a Snapshot,
}

impl Widget for View<'_> {
    fn render(self, area: Rect, buffer: &mut Buffer) {
        let s = self.snapshot;
        let mut rows = Rows { area, next: area.y };
        heading(s, &mut rows, buffer);
        // The matrix needs a row per peer and two more; page bars come first where there is no room for both.
        let bars = s.hosts.len();
        let free = usize::from(rows.left()).saturating_sub(5);
        page_bars(s, bars.min(free.max(1)), &mut rows, buffer);
        rows.skip_if_roomy(s.hosts.len() + 5);
        share(s, &mut rows, buffer);
        rows.skip_if_roomy(s.hosts.len() + 3);
        matrix(s, &mut rows, buffer);
        footer(s, area, buffer, rows.next);
    }
}

/// Hands out rows from the top; keeps the last one for the footer.
struct Rows {
    area: Rect,
    next: u16,
}

impl Rows {
    fn left(&self) -> u16 {
        self.area.bottom().saturating_sub(1).saturating_sub(self.next)
    }

    fn take(&mut self) -> Option<Rect> {
        if self.left() == 0 {
            return None;
        }
        let row = Rect { y: self.next, height: 1, ..self.area };
        self.next += 1;
        Some(row)
    }

    fn line(&mut self, buffer: &mut Buffer, line: Line<'_>) {
        if let Some(row) = self.take() {
            line.render(row, buffer);
        }
    }

    /// An empty row, if `needed` rows remain below it.
    fn skip_if_roomy(&mut self, needed: usize) {
        if usize::from(self.left()) > needed {
            self.next += 1;
        }
    }
}

fn heading(s: &Snapshot, rows: &mut Rows, buffer: &mut Buffer) {
    let facts = format!("  {} · {} · {} pages", clock(s.duration), DecimalBytes(s.bytes), s.pages);
    let title = Span::styled(printable(&s.title), STRONG);
    rows.line(buffer, Line::from(vec![title, Span::styled(facts, SOFT)]));
    let underlined = Style::new().add_modifier(Modifier::UNDERLINED);
    for (label, link) in [("Listen   ", &s.player), ("Watch    ", &s.page), ("Tracker  ", &s.tracker)] {
        rows.line(
            buffer,
            Line::from(vec![Span::styled(label, SOFT), Span::styled(link.as_str(), underlined)]),
        );
    }
    rows.skip_if_roomy(2 * s.hosts.len() + 6);
}

fn page_bars(s: &Snapshot, most: usize, rows: &mut Rows, buffer: &mut Buffer) {
    for (i, host) in s.hosts.iter().take(most).enumerate() {
        let Some(row) = rows.take() else { return };
        let name = Rect { width: NAME.min(row.width), ..row };
        let style = if i == 0 { Style::new().fg(ORIGIN) } else { Style::new() };
        Span::styled(printable(&host.name), style).render(name, buffer);
        let figures = if row.width > NAME + FIGURES + 8 { FIGURES } else { 0 };
        let bar = Rect { x: row.x + name.width, width: row.width - name.width - figures, ..row };
        page_bar(host, if i == 0 { ORIGIN } else { HELD }, bar, buffer);
        if figures > 0 {
            let right = Rect { x: bar.right() + 1, width: figures - 1, ..row };
            Line::from(figures_of(host, i == 0)).render(right, buffer);
        }
    }
    if s.hosts.len() > most {
        rows.line(buffer, Line::styled(format!("         and {} more", s.hosts.len() - most), SOFT));
    }
}

/// `full`, `3.1 s`, or the share held; what comes in and goes out.
fn figures_of(host: &Host, origin: bool) -> Vec<Span<'static>> {
    let state = match host.complete {
        _ if origin => "source".to_owned(),
        Some(at) => format!("{:.1} s", at.as_secs_f64()),
        None => format!("{:.0} %", 100.0 * ratio(host.map.held(), host.map.pages())),
    };
    let (incoming, outgoing) = (host.arriving(), host.out);
    let arrow = |n: u64, sign: &str| if n > 0 { format!("{sign}{:>10}", rate(n)) } else { " ".repeat(11) };
    vec![
        Span::styled(
            format!("{state:>7} "),
            if host.complete.is_some() { Style::new().fg(Color::Green) } else { STRONG },
        ),
        Span::styled(arrow(incoming, " ↓"), Style::new().fg(HELD)),
        Span::styled(arrow(outgoing, " ↑"), Style::new().fg(ORIGIN)),
    ]
}

/// A cell is full, empty, or as high as its part held, so that the bar can be read without colours too.
fn page_bar(host: &Host, full: Color, area: Rect, buffer: &mut Buffer) {
    const LEVELS: [&str; 7] = ["▁", "▂", "▃", "▄", "▅", "▆", "▇"];
    let pages = host.map.pages();
    for x in 0..area.width {
        // The pages that fall into the cell; at least one, where there are fewer pages than cells.
        let edge = |x: u16| u64::from(x) * pages / u64::from(area.width.max(1));
        let (first, end) = (edge(x), edge(x + 1).max(edge(x) + 1).min(pages));
        let held = (first..end).filter(|p| host.map.has(*p)).count() as u64;
        let (symbol, color) = match held {
            0 => ("·", Color::DarkGray),
            h if h == end - first => ("█", full),
            h => {
                let level = usize::try_from(h * LEVELS.len() as u64 / (end - first)).unwrap_or(0);
                (LEVELS[level.min(LEVELS.len() - 1)], PARTLY)
            }
        };
        if let Some(cell) = buffer.cell_mut((area.x + x, area.y)) {
            cell.set_symbol(symbol).set_fg(color);
        }
    }
}

/// Where the peers' bytes came from, as one bar.
fn share(s: &Snapshot, rows: &mut Rows, buffer: &mut Buffer) {
    let (origin, peers) = s.sources();
    let part = ratio(origin, origin + peers);
    let limit = s.hosts.first().map_or(0, |o| o.limit);
    rows.line(
        buffer,
        Line::from(vec![
            Span::styled("Origin ", Style::new().fg(ORIGIN)),
            Span::raw(format!("sends at most {}; ", rate(limit))),
            Span::styled(format!("{:.2} copies", s.copies()), STRONG),
            Span::raw(format!(" left it for {} peers", s.peers().len())),
        ]),
    );
    let Some(row) = rows.take() else { return };
    let text = format!(
        " {:.0} % origin, {:.0} % peers",
        100.0 * part,
        if origin + peers > 0 { 100.0 - 100.0 * part } else { 0.0 }
    );
    let width = row.width.saturating_sub(u16::try_from(text.chars().count()).unwrap_or(u16::MAX));
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1 times a width")]
    let filled = (f64::from(width) * part).round() as u16;
    for x in 0..width {
        let color = match () {
            () if origin + peers == 0 => Color::DarkGray,
            () if x < filled => ORIGIN,
            () => HELD,
        };
        if let Some(cell) = buffer.cell_mut((row.x + x, row.y)) {
            cell.set_symbol(if x < filled { "█" } else { "▓" }).set_fg(color);
        }
    }
    Span::raw(text).render(Rect { x: row.x + width, width: row.width - width, ..row }, buffer);
}

/// Who sends to whom: a row per receiver, a column per sender; bright where bytes move now.
fn matrix(s: &Snapshot, rows: &mut Rows, buffer: &mut Buffer) {
    if rows.left() < 3 {
        return;
    }
    let columns = usize::from(rows.area.width.saturating_sub(NAME) / CELL).min(s.hosts.len());
    let mut head = vec![Span::styled(format!("{:<9}", "to\\from"), SOFT)];
    head.extend(s.hosts.iter().take(columns).map(|h| Span::styled(format!("{:>7} ", short(&h.name)), SOFT)));
    rows.line(buffer, Line::from(head));
    let room = usize::from(rows.left());
    for (i, host) in s.hosts.iter().enumerate().skip(1).take(room) {
        let mut line = vec![Span::raw(format!("{:<9}", short(&host.name)))];
        line.extend((0..columns).map(|from| flow(host.from.get(from).copied().unwrap_or_default(), from, i)));
        rows.line(buffer, Line::from(line));
    }
}

fn flow(flow: Flow, from: usize, to: usize) -> Span<'static> {
    let text = match flow.bytes {
        _ if from == to => "–".to_owned(),
        0 => "·".to_owned(),
        n => compact(n),
    };
    let color = if from == 0 { ORIGIN } else { HELD };
    let (mark, style) = match flow.rate {
        0 => (' ', SOFT),
        _ => ('◂', Style::new().fg(color).add_modifier(Modifier::BOLD)),
    };
    Span::styled(format!("{text:>7}{mark}"), style)
}

fn footer(s: &Snapshot, area: Rect, buffer: &mut Buffer, used: u16) {
    if used > area.bottom() || area.height == 0 {
        return;
    }
    let row = Rect { y: area.bottom() - 1, height: 1, ..area };
    let line = match s.verdict {
        None => Line::styled(format!("{:.1} s   q quits", s.elapsed.as_secs_f64()), SOFT),
        Some(v) if v.equal == v.peers => Line::styled(
            format!("All {} copies equal the source. {} pages verified.   q quits", v.peers, s.verified()),
            Style::new().fg(Color::Green).add_modifier(Modifier::BOLD),
        ),
        Some(v) => Line::styled(
            format!("{} of {} copies equal the source.   q quits", v.equal, v.peers),
            Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
        ),
    };
    line.render(row, buffer);
}

fn short(name: &str) -> String {
    printable(name).chars().take(7).collect()
}

/// At most three digits and a point, and the decimal prefix.
fn scaled(n: u64) -> (String, &'static str) {
    let mut value = ratio(n, 1);
    let mut prefix = "";
    for next in ["k", "M", "G", "T"] {
        if value < 999.5 {
            break;
        }
        (value, prefix) = (value / 1000.0, next);
    }
    (if value < 9.95 && !prefix.is_empty() { format!("{value:.1}") } else { format!("{value:.0}") }, prefix)
}

fn compact(n: u64) -> String {
    let (number, prefix) = scaled(n);
    number + prefix
}

fn rate(n: u64) -> String {
    let (number, prefix) = scaled(n);
    format!("{number} {prefix}B/s")
}

fn clock(d: Duration) -> String {
    let s = d.as_secs();
    if s >= 3600 {
        format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
    } else {
        format!("{}:{:02}", s / 60, s % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::super::snapshot::Verdict;
    use super::*;
    use iceshare::icet::{PageMap, PageRanges};
    use proptest::prelude::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn snapshot(peers: u64, pages: u64) -> Snapshot {
        let host = |i: u64| {
            let mut map = if i == 0 { PageMap::full(pages) } else { PageMap::new(pages) };
            map.insert_all(&PageRanges::one(0, pages * i / (peers + 1)));
            let from = (0..=peers)
                .map(|j| Flow {
                    bytes: if i > 0 && j < i { 1000 * (j + 1) } else { 0 },
                    rate: if j == 0 && i == 1 { 5 } else { 0 },
                })
                .collect();
            Host {
                name: if i == 0 { "origin".into() } else { format!("peer {i}") },
                map,
                limit: 80_000,
                sent: 500_000,
                out: if i == 0 { 79_000 } else { 0 },
                from,
                bad: 0,
                complete: None,
            }
        };
        Snapshot {
            title: "Song\u{1b}[31m".into(),
            bytes: 1_000_000,
            pages,
            duration: Duration::from_secs(90),
            player: "http://127.0.0.1:4000/t/song.opus".into(),
            page: "http://127.0.0.1:4000/t/".into(),
            tracker: "http://127.0.0.1:4001/".into(),
            elapsed: Duration::from_millis(4200),
            hosts: (0..=peers).map(host).collect(),
            verdict: None,
        }
    }

    fn screen(s: &Snapshot, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        terminal.draw(|frame| draw(frame, s)).expect("drawn");
        let buffer = terminal.backend().buffer();
        let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..height).map(row).collect()
    }

    #[test]
    fn all_is_there_on_an_ordinary_terminal() {
        let mut s = snapshot(6, 300);
        let lines = screen(&s, 80, 24);
        let text = lines.join("\n");
        assert!(lines[0].starts_with("Song\\u{1b}[31m  1:30 · 1.00 MB · 300 pages"), "{text}");
        assert!(text.contains("http://127.0.0.1:4000/t/song.opus"), "{text}");
        assert!(text.contains("0.50 copies left it for 6 peers"), "{text}");
        let bar = |name: &str| lines.iter().find(|l| l.starts_with(name)).cloned().unwrap_or_default();
        assert_eq!(bar("origin").matches('█').count(), 37, "{text}");
        assert_eq!(bar("peer 6").matches('·').count(), 5, "{text}");
        assert!(bar("peer 1").contains('▁') || bar("peer 1").contains("█"), "{text}");
        for i in 1..=6 {
            assert_eq!(lines.iter().filter(|l| l.starts_with(&format!("peer {i}"))).count(), 2, "{text}");
        }
        let of_first = lines.iter().rfind(|l| l.starts_with("peer 1")).expect("a row");
        assert!(of_first.contains("1.0k◂") && of_first.contains('–'), "{text}");
        assert!(text.contains("17 % origin, 83 % peers") || text.contains("% origin"), "{text}");
        assert!(lines[23].contains("4.2 s"), "{text}");
        s.verdict = Some(Verdict { equal: 6, peers: 6 });
        assert!(screen(&s, 80, 24)[23].starts_with("All 6 copies equal the source."));
        s.verdict = Some(Verdict { equal: 5, peers: 6 });
        assert!(screen(&s, 80, 24)[23].starts_with("5 of 6 copies"));
    }

    #[test]
    fn numbers_keep_their_width() {
        for (n, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1.0k"),
            (9949, "9.9k"),
            (9950, "10k"),
            (999_500, "1.0M"),
            (u64::MAX, "18446744T"),
        ] {
            assert_eq!(compact(n), text);
        }
        assert_eq!(rate(80_000), "80 kB/s");
        assert_eq!(clock(Duration::from_secs(3723)), "1:02:03");
    }

    proptest! {
        #[test]
        fn no_terminal_is_too_small(width in 1u16..200, height in 1u16..60, peers in 1u64..33, pages in 1u64..500) {
            screen(&snapshot(peers, pages), width, height);
        }
    }
}
