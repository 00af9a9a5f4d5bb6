//! Checks an Ogg file page by page.
