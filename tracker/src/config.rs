//! Configuration files, of `iceshare` too: each key is taken out once and as what it may be, and mistakes are told with key,
//! value and what is allowed there.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use toml::{Table, Value};

/// Longest file, in bytes.
const MOST: u64 = 1 << 20;

/// What keys take, for people.
const TEXT: &str = "a text, as on the command line";
const TEXTS: &str = "a text or a list of texts";
const TRUTH: &str = "true or false";
const TRUTH_OR_TEXT: &str = "true or false, or a text as on the command line";
const TABLE: &str = "a table";

/// A file, or a table in it.
#[derive(Debug)]
pub struct Keys {
    /// What stands before a key: the table's name and a dot.
    before: String,
    table: Table,
}

/// The text of a file, but not more than a configuration can have: a device may never end.
///
/// # Errors
/// What the system says, and of what is too long or no UTF-8.
pub fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MOST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MOST {
        return Err(io::Error::other(format!("it has more than {MOST} bytes")));
    }
    Ok(text)
}

/// A value as it stands in the file, or nearly so.
fn shown(value: &Value) -> String {
    match value {
        Value::String(s) => format!("{s:?}"),
        Value::Integer(n) => n.to_string(),
        Value::Float(n) => n.to_string(),
        Value::Boolean(b) => b.to_string(),
        Value::Datetime(d) => d.to_string(),
        Value::Array(all) => {
            let all: Vec<_> = all.iter().map(shown).collect();
            format!("[{}]", all.join(", "))
        }
        Value::Table(_) => "a table".to_owned(),
    }
}

/// A value as it would stand on the command line: a number means what it means there.
pub fn plain(value: Value) -> Result<String, Value> {
    match value {
        Value::String(s) => Ok(s),
        Value::Integer(n) => Ok(n.to_string()),
        Value::Float(n) => Ok(n.to_string()),
        other => Err(other),
    }
}

impl Keys {
    /// Of a file with this text, whose keys are `known`.
    ///
    /// # Errors
    /// What is no TOML, with its line, and other keys.
    pub fn of(text: &str, known: &[&str]) -> Result<Keys, String> {
        let table: Table = toml::from_str(text).map_err(|e| {
            let before = e.span().and_then(|s| text.get(..s.start)).unwrap_or_default();
            let number = before.split('\n').count();
            let line = text.lines().nth(number - 1).unwrap_or_default().trim();
            format!("line {number}, {line:?}: {}", e.message().replace('\n', " "))
        })?;
        match table.keys().find(|k| !known.contains(&k.as_str())) {
            Some(key) => Err(format!("{key:?} is none of its keys, which are {}", known.join(", "))),
            None => Ok(Keys { before: String::new(), table }),
        }
    }

    fn wrong(&self, key: &str, value: &Value, allowed: &str) -> String {
        format!("{}{key} = {}: it takes {allowed}", self.before, shown(value))
    }

    fn take<T>(
        &mut self,
        key: &str,
        allowed: &str,
        read: impl Fn(Value) -> Result<T, Value>,
    ) -> Result<Option<T>, String> {
        let Some(value) = self.table.remove(key) else { return Ok(None) };
        read(value).map(Some).map_err(|value| self.wrong(key, &value, allowed))
    }

    /// A text.
    ///
    /// # Errors
    /// What else stands there.
    pub fn text(&mut self, key: &str) -> Result<Option<String>, String> {
        self.take(key, TEXT, |v| if let Value::String(s) = v { Ok(s) } else { Err(v) })
    }

    /// A text or a number.
    ///
    /// # Errors
    /// What else stands there.
    pub fn amount(&mut self, key: &str) -> Result<Option<String>, String> {
        self.take(key, TEXT, plain)
    }

    /// A text, with commas between several, or a list.
    ///
    /// # Errors
    /// What else stands there.
    pub fn list(&mut self, key: &str) -> Result<Option<Vec<String>>, String> {
        self.take(key, TEXTS, |value| match value {
            Value::String(one) => Ok(one.split(',').map(|s| s.trim().to_owned()).collect()),
            Value::Array(all) => {
                let texts: Option<Vec<_>> = all.iter().map(|v| Some(v.as_str()?.trim().to_owned())).collect();
                texts.ok_or(Value::Array(all))
            }
            other => Err(other),
        })
    }

    /// True or false.
    ///
    /// # Errors
    /// What else stands there.
    pub fn truth(&mut self, key: &str) -> Result<bool, String> {
        let truth = self.take(key, TRUTH, |v| v.as_bool().ok_or(v))?;
        Ok(truth.unwrap_or(false))
    }

    /// In TOML a yes is a `true`, too.
    ///
    /// # Errors
    /// What else stands there.
    pub fn yes(&mut self, key: &str) -> Result<Option<String>, String> {
        self.take(key, TRUTH_OR_TEXT, |value| match value {
            Value::String(s) => Ok(s),
            Value::Boolean(yes) => Ok(if yes { "yes" } else { "no" }.to_owned()),
            other => Err(other),
        })
    }

    /// A table, whose keys are anybody's.
    ///
    /// # Errors
    /// What else stands there.
    pub fn table(&mut self, key: &str) -> Result<Keys, String> {
        let table = self.take(key, TABLE, |v| if let Value::Table(t) = v { Ok(t) } else { Err(v) })?;
        Ok(Keys { before: format!("{}{key}.", self.before), table: table.unwrap_or_default() })
    }

    /// The names of all that is left.
    pub fn names(&self) -> Vec<String> {
        self.table.keys().cloned().collect()
    }

    /// Whatever it is.
    pub fn any(&mut self, key: &str) -> Option<Value> {
        self.table.remove(key)
    }
}
