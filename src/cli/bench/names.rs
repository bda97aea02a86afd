//! The ids of a measurement's conversations: numbers with a prefix that no other run has.

use std::sync::Arc;

use crate::cli::fresh;

/// Names conversations, and tells those of this measurement from others.
#[derive(Clone, Debug)]
pub(super) struct Names {
    prefix: Arc<str>,
}

impl Names {
    pub(super) fn new() -> Self {
        Self {
            prefix: format!("bench-{}-", fresh::id()).into(),
        }
    }

    /// The id of a conversation.
    pub(super) fn id(&self, number: usize) -> String {
        format!("{}{number}", self.prefix)
    }

    /// The number of a conversation; `None` for one of another measurement.
    pub(super) fn number(&self, id: &str) -> Option<usize> {
        id.strip_prefix(&*self.prefix)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_gives_its_number_back() {
        let names = Names::new();
        assert_eq!(names.number(&names.id(17)), Some(17));
    }

    #[test]
    fn names_of_others_are_told_apart() {
        let names = Names::new();
        assert_eq!(names.number("bench-other-17"), None);
        assert_eq!(names.number(&format!("{}x", names.id(17))), None);
    }
}
