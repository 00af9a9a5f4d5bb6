//! `iceshare-sim`: runs scenarios, prints figures, writes JSON and plots.
#![allow(clippy::print_stdout)]

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Parser;
use iceshare_sim::{Scenario, Wire, delays, plot, run};

/// Runs whole swarms in virtual time: the real tracker's mind, and a real peer engine for each peer.
#[derive(Debug, Parser)]
#[command(name = "iceshare-sim", version)]
struct Args {
    /// Scenarios (TOML); none: the standard crowd.
    scenarios: Vec<PathBuf>,
    /// Sizes of the crowd, instead of the scenario's.
    #[arg(long, value_name = "N", value_delimiter = ',')]
    peers: Vec<usize>,
    /// Seed, instead of the scenario's.
    #[arg(long)]
    seed: Option<u64>,
    /// Something else of the scenario, as `crowd.loss=0.01`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Run no local rarest-first swarm beside it.
    #[arg(long)]
    no_yardstick: bool,
    /// Count bytes of control messages by their encoded length.
    #[arg(long)]
    count: bool,
    /// Write figures here, as a JSON array.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the delay of broadcasts against the size of the crowd here, as an SVG.
    #[arg(long, value_name = "FILE")]
    delays: Option<PathBuf>,
    /// Write plots of each run into this folder.
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let mut figures = Vec::new();
    for scenario in scenarios(&args)? {
        let name = format!("{}-{}", scenario.name, scenario.crowd.peers);
        println!("{name} (seed {})", scenario.seed);
        let wire = if args.count { Wire::Counted } else { Wire::Types };
        let began = Instant::now();
        let out = run(&scenario, wire);
        let took = began.elapsed().as_secs_f64();
        print!("{}", out.figures.text());
        let (virtual_time, events) = (out.figures.seconds, out.events);
        println!("  {:<22} {virtual_time:.0} s in {took:.1} s, {events} events\n", "simulated");
        if let Some(dir) = &args.plots {
            std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
            let file = dir.join(format!("{name}.svg"));
            std::fs::write(&file, plot(&scenario, &out)).with_context(|| file.display().to_string())?;
        }
        figures.push(out.figures);
    }
    if let Some(file) = &args.delays {
        std::fs::write(file, delays(&figures)).with_context(|| file.display().to_string())?;
    }
    if let Some(file) = &args.json {
        let text = serde_json::to_string_pretty(&figures)? + "\n";
        std::fs::write(file, text).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

/// What is to be run.
fn scenarios(args: &Args) -> Result<Vec<Scenario>> {
    let mut found = Vec::new();
    for file in &args.scenarios {
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let mut table: toml::Table = text.parse().with_context(|| file.display().to_string())?;
        for set in &args.sets {
            put(&mut table, set)?;
        }
        found.push((stem(file), table));
    }
    if found.is_empty() {
        let mut table = toml::Table::new();
        for set in &args.sets {
            put(&mut table, set)?;
        }
        found.push(("standard-crowd".to_owned(), table));
    }
    let mut scenarios = Vec::new();
    for (name, table) in found {
        let mut s: Scenario = table.try_into().with_context(|| format!("{name}: not a scenario"))?;
        if s.name.is_empty() {
            s.name = name;
        }
        s.seed = args.seed.unwrap_or(s.seed);
        s.yardstick.run &= !args.no_yardstick;
        let sizes = if args.peers.is_empty() { vec![s.crowd.peers] } else { args.peers.clone() };
        for n in sizes {
            let mut s = s.clone();
            s.crowd.peers = n;
            s.check().with_context(|| s.name.clone())?;
            scenarios.push(s);
        }
    }
    Ok(scenarios)
}

fn stem(file: &Path) -> String {
    file.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned())
}

/// Sets `a.b=value` in a table.
fn put(table: &mut toml::Table, set: &str) -> Result<()> {
    let Some((key, value)) = set.split_once('=') else { bail!("--set {set}: KEY=VALUE") };
    let line: toml::Table = format!("x = {value}").parse().with_context(|| format!("--set {set}"))?;
    let mut at = table;
    let mut parts = key.split('.').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            at.insert(part.to_owned(), line["x"].clone());
            break;
        }
        let next = at.entry(part).or_insert_with(|| toml::Table::new().into());
        at = next.as_table_mut().with_context(|| format!("--set {set}: {part} has no parts"))?;
    }
    Ok(())
}
