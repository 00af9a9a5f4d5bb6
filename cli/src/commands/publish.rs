//! `iceshare publish` and `iceshare serve`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use iceshare::icet::MediaPath;
use tokio_util::sync::CancellationToken;

use crate::args;
use crate::config::Settings;
use crate::escape::printable;
use crate::failure::{Failure, Outcome};
use crate::output::note;
use crate::peer::{self, Role};
use crate::share::{Sharer, Strictness, Wanted};
use crate::tree;

pub(crate) async fn publish(args: &args::Publish, settings: &Settings, stop: &CancellationToken) -> Outcome {
    let tracker = peer::tracker(&args.tracker.tracker, settings)?;
    let wanted = named(args)?;
    let (peer, kept) = peer::start(settings, Role::Publisher).await?;
    let sharer = Sharer::new(&peer, &kept.claim.key.identity, tracker, Strictness::All);
    let end = sharer.run(|| Ok(wanted.clone()), stop).await;
    peer.shutdown().await;
    end.and(Err(Failure::interrupted()))
}

pub(crate) async fn serve(args: &args::Serve, settings: &Settings, stop: &CancellationToken) -> Outcome {
    let tracker = peer::tracker(&args.tracker.tracker, settings)?;
    let unreadable = |e| Failure::failed(format!("cannot read the folder {}: {e}", args.dir.display()));
    tree::walk(&args.dir).map_err(unreadable)?;
    let (peer, kept) = peer::start(settings, Role::Publisher).await?;
    let sharer = Sharer::new(&peer, &kept.claim.key.identity, tracker, Strictness::Skip);
    let mut told = std::collections::HashSet::new();
    let list = || {
        let tree = tree::walk(&args.dir).map_err(unreadable)?;
        for (file, why) in tree.left_out {
            let line = format!("skipped {}: {}", printable(&file.display().to_string()), printable(&why));
            if told.insert(line.clone()) {
                note(line);
            }
        }
        let want = |file| Wanted { file, title: None, repair_to: None };
        Ok(tree.files.into_iter().map(|(path, file)| (path, want(file))).collect())
    };
    let end = sharer.run(list, stop).await;
    peer.shutdown().await;
    end.and(Err(Failure::interrupted()))
}

/// The files by their media paths.
fn named(args: &args::Publish) -> Result<BTreeMap<MediaPath, Wanted>, Failure> {
    if args.files.len() > 1 && (args.path.is_some() || args.title.is_some()) {
        return Err(Failure::usage("--as and --title are for one file: publish the files one by one"));
    }
    let mut wanted = BTreeMap::new();
    for file in &args.files {
        let path = match &args.path {
            Some(path) => path.clone(),
            None => path_of(file)?,
        };
        let want = Wanted {
            file: file.clone(),
            title: args.title.clone(),
            repair_to: args.repair.then(|| repaired(file)),
        };
        if let Some(other) = wanted.insert(path.clone(), want) {
            return Err(Failure::usage(format!(
                "{} and {} would both be {path} on the tracker: publish one of them with --as",
                other.file.display(),
                file.display()
            )));
        }
    }
    Ok(wanted)
}

fn path_of(file: &Path) -> Result<MediaPath, Failure> {
    let no = |why: String| {
        Failure::usage(format!(
            "the name of {} cannot be its media path ({why}): choose one with --as",
            file.display()
        ))
    };
    let name = file.file_name().ok_or_else(|| no("it has none".into()))?;
    let name = name.to_str().ok_or_else(|| no("it is not UTF-8".into()))?;
    MediaPath::new(name).map_err(|e| no(e.to_string()))
}

/// `song.repaired.opus` beside `song.opus`.
fn repaired(file: &Path) -> PathBuf {
    let mut name = file.file_stem().map(OsString::from).unwrap_or_default();
    name.push(".repaired");
    if let Some(extension) = file.extension() {
        name.push(".");
        name.push(extension);
    }
    file.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(files: &[&str], path: Option<&str>) -> args::Publish {
        args::Publish {
            files: files.iter().map(PathBuf::from).collect(),
            tracker: args::TrackerArg { tracker: None },
            path: path.map(|p| p.parse().expect("a path")),
            title: None,
            repair: true,
        }
    }

    #[test]
    fn files_get_their_names_as_paths() {
        let wanted = named(&publish(&["a/x.ogg", "b/y.opus"], None)).expect("named");
        let names: Vec<_> = wanted.keys().map(MediaPath::as_str).collect();
        assert_eq!(names, ["x.ogg", "y.opus"]);
        let one = named(&publish(&["a/x.ogg"], Some("music/one.ogg"))).expect("named");
        assert!(one.keys().any(|p| p.as_str() == "music/one.ogg"));
        let repair = one.values().next().and_then(|w| w.repair_to.clone());
        assert_eq!(repair, Some(PathBuf::from("a/x.repaired.ogg")));
        for (files, path) in [
            (vec!["a/x.ogg", "b/x.ogg"], None),
            (vec!["a", "b"], Some("c")),
            (vec![".."], None),
            (vec!["/"], None),
        ] {
            assert!(named(&publish(&files, path)).is_err(), "{files:?}");
        }
    }
}
