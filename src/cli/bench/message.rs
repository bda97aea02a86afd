//! Questions and their answers: text of a given size that says which turn it belongs to.

use std::fmt::Write;

/// What a question begins with...
const QUESTION: char = 'q';
/// ...and its answer, so that a question that comes back is not taken for one.
const ANSWER: char = 'a';

/// Writes questions of one size.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    padding: String,
}

impl Writer {
    pub(super) fn new(size: usize) -> Self {
        Self {
            padding: "x".repeat(size),
        }
    }

    /// The question of a turn: its conversation, its number, and padding up to the size.
    pub(super) fn question(&self, conversation: usize, turn: u64) -> String {
        let mut text = String::with_capacity(self.padding.len());
        // Writing to a String cannot fail.
        let _ = write!(text, "{QUESTION}{conversation}:{turn}:");
        text.push_str(self.padding.get(text.len()..).unwrap_or_default());
        text
    }

    /// Whether this is the question of a turn.
    pub(super) fn is_question(&self, text: &str, conversation: usize, turn: u64) -> bool {
        self.is_of(QUESTION, text, conversation, turn)
    }

    /// Whether this is the answer to the question of a turn.
    pub(super) fn is_answer(&self, text: &str, conversation: usize, turn: u64) -> bool {
        self.is_of(ANSWER, text, conversation, turn)
    }

    fn is_of(&self, kind: char, text: &str, conversation: usize, turn: u64) -> bool {
        let rest = text
            .strip_prefix(kind)
            .and_then(|rest| number(rest, conversation as u64))
            .and_then(|rest| number(rest, turn));
        text.len() == self.padding.len() && rest.is_some_and(|rest| self.padding.ends_with(rest))
    }
}

/// Answers a question in its own memory; `None` when it is none.
pub(super) fn answer(mut question: String) -> Option<String> {
    if !question.starts_with(QUESTION) {
        return None;
    }
    question.replace_range(..QUESTION.len_utf8(), ANSWER.encode_utf8(&mut [0; 4]));
    Some(question)
}

/// What follows a number and its colon, if it is that number.
fn number(text: &str, expected: u64) -> Option<&str> {
    let (digits, rest) = text.split_once(':')?;
    (digits.parse() == Ok(expected)).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_fits_its_question_and_no_other() {
        let writer = Writer::new(100);
        let question = writer.question(7, 42);
        assert_eq!(question.len(), 100);
        assert!(writer.is_question(&question, 7, 42));
        assert!(!writer.is_question(&question, 7, 41));
        assert!(!writer.is_answer(&question, 7, 42));
        let Some(answer) = answer(question) else {
            panic!("a question has an answer");
        };
        assert!(writer.is_answer(&answer, 7, 42));
        assert!(!writer.is_answer(&answer, 7, 41));
        assert!(!writer.is_answer(&answer, 8, 42));
        assert!(!writer.is_answer(&answer[..99], 7, 42));
        assert!(!writer.is_answer(&answer.replace("xx", "xy"), 7, 42));
    }

    #[test]
    fn only_questions_are_answered() {
        assert_eq!(answer("a1:1:".into()), None);
        assert_eq!(answer(String::new()), None);
    }
}
