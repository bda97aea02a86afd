//! What happened in a run, as a number that tells two runs apart, and in words for one who asks.

use std::fmt;
use std::hash::{DefaultHasher, Hasher};

pub(crate) struct Trace {
    hash: DefaultHasher,
    line: String,
    lines: u64,
    aloud: bool,
}

impl Trace {
    pub(crate) fn new(aloud: bool) -> Self {
        Self {
            hash: DefaultHasher::new(),
            line: String::new(),
            lines: 0,
            aloud,
        }
    }

    pub(crate) fn note(&mut self, what: fmt::Arguments<'_>) {
        self.line.clear();
        fmt::write(&mut self.line, what).expect("a text takes everything");
        if self.aloud {
            println!("{:>6} {}", self.lines, self.line);
        }
        self.lines += 1;
        self.hash.write(self.line.as_bytes());
        self.hash.write_u8(b'\n');
    }

    /// How many things happened, and the hash of all.
    pub(crate) fn end(&self) -> (u64, u64) {
        (self.lines, self.hash.finish())
    }
}
