//! The tracker inside another program, as `iceshare demo` has it.

use icetracker::catalogue::CatalogueError;
use icetracker::server::{self, Options, RunError, Running};

async fn run(data: &std::path::Path) -> Result<Running, RunError> {
    let mut options = Options::new(data);
    options.listen = vec!["127.0.0.1:0".parse().unwrap()];
    options.web = Some("127.0.0.1:0".parse().unwrap());
    server::run(options).await
}

#[tokio::test]
async fn several_run_beside_and_after_each_other_but_not_on_one_folder() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = run(a.path()).await.unwrap();
    let second = run(b.path()).await.unwrap();
    assert_ne!(first.key(), second.key());
    assert_ne!(first.icet(), second.icet());
    let taken = run(a.path()).await.unwrap_err();
    assert!(matches!(taken, RunError::Catalogue(CatalogueError::Locked(_))), "{taken}");
    let before = first.observer().ask(|s| s.config().epoch).await.unwrap();
    let (key, observer) = (first.key(), first.observer());
    first.shutdown().await.unwrap();
    observer.ask(|s| s.totals()).await.unwrap_err();
    let again = run(a.path()).await.unwrap();
    assert_eq!(again.key(), key);
    assert_eq!(again.observer().ask(|s| s.config().epoch).await.unwrap(), before + 1);
    again.shutdown().await.unwrap();
    second.shutdown().await.unwrap();
}
