//! From a template's source to its nodes.

use crate::grammar::values::quote;

/// A piece of a template.
pub enum Node {
    Text(String),
    Action(Pipe),
    If {
        pipe: Pipe,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    With {
        pipe: Pipe,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Range {
        pipe: Pipe,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Break,
    Continue,
}

/// Commands joined by `|`, with the variables that take the result.
pub struct Pipe {
    pub variables: Vec<String>,
    pub declares: bool,
    pub commands: Vec<Command>,
}

/// A function or method with its arguments, or a single value.
pub struct Command {
    pub arguments: Vec<Operand>,
    pub start: usize,
    pub end: usize,
}

/// An operand and where its text is; `at` is the position that error messages name.
pub struct Operand {
    pub term: Term,
    pub fields: Vec<String>,
    pub at: usize,
    pub start: usize,
    pub end: usize,
}

pub enum Term {
    Dot,
    Nil,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    Variable(String),
    Function(String),
    Pipe(Pipe),
}

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Text(String),
    Open,
    Close,
    Word(String),
    Field(String),
    Variable(String),
    Quoted(String),
    Number(String),
    Dot,
    Pipe,
    Comma,
    Declare,
    Assign,
    Left,
    Right,
    Space,
    End,
}

#[derive(Debug, Clone)]
struct Token {
    kind: Kind,
    start: usize,
    end: usize,
}

/// The functions that a template may name.
pub const FUNCTIONS: [&str; 27] = [
    "and", "call", "eq", "ge", "gt", "html", "index", "join", "js", "json", "le", "len", "lower",
    "lt", "ne", "not", "or", "pad", "print", "printf", "println", "slice", "split", "title",
    "truncate", "upper", "urlquery",
];

pub fn parse(source: &str) -> Result<Vec<Node>, String> {
    let tokens = lex(source).map_err(|(at, message)| located(source, at, &message))?;
    let mut parser = Parser {
        source,
        tokens,
        at: 0,
        variables: vec!["$".to_owned()],
        loops: 0,
    };
    let (nodes, end) = parser.list()?;
    match end {
        Stop::End => Ok(nodes),
        Stop::Else { at } => Err(located(source, at, "unexpected {{else}}")),
        Stop::Finish { at } => Err(located(source, at, "unexpected {{end}}")),
    }
}

fn located(source: &str, at: usize, message: &str) -> String {
    let line = 1 + source[..at.min(source.len())].matches('\n').count();
    format!("template: :{line}: {message}")
}

fn lex(source: &str) -> Result<Vec<Token>, (usize, String)> {
    let mut tokens = Vec::new();
    let mut at = 0;
    let mut trim_next = false;
    while at < source.len() {
        let open = source[at..].find("{{").map(|offset| at + offset);
        let mut text = &source[at..open.unwrap_or(source.len())];
        if trim_next {
            text = text.trim_start_matches([' ', '\t', '\r', '\n']);
        }
        let Some(open) = open else {
            push(&mut tokens, Kind::Text(text.to_owned()), at, source.len());
            break;
        };
        let mut inside = open + 2;
        let rest = &source[inside..];
        if rest.starts_with('-') && rest[1..].starts_with([' ', '\t', '\r', '\n']) {
            text = text.trim_end_matches([' ', '\t', '\r', '\n']);
            inside += 2;
        }
        if !text.is_empty() {
            push(&mut tokens, Kind::Text(text.to_owned()), at, open);
        }
        let comment = source[inside..].trim_start();
        if comment.starts_with("/*") {
            let begin = source.len() - comment.len();
            let end = source[begin..]
                .find("*/")
                .ok_or((open, "unclosed comment".to_owned()))?
                + begin
                + 2;
            let after = &source[end..];
            let trimmed = after.strip_prefix(" -}}");
            trim_next = trimmed.is_some();
            let after = trimmed
                .or_else(|| after.strip_prefix("}}"))
                .ok_or((open, "comment ends before closing delimiter".to_owned()))?;
            at = source.len() - after.len();
            continue;
        }
        push(&mut tokens, Kind::Open, open, inside);
        let (end, trims) = lex_action(source, inside, &mut tokens)?;
        at = end;
        trim_next = trims;
    }
    push(&mut tokens, Kind::End, source.len(), source.len());
    Ok(tokens)
}

fn push(tokens: &mut Vec<Token>, kind: Kind, start: usize, end: usize) {
    tokens.push(Token { kind, start, end });
}

fn word_end(source: &str, from: usize) -> usize {
    source[from..]
        .find(|c: char| !(c.is_alphanumeric() || c == '_'))
        .map_or(source.len(), |offset| from + offset)
}

fn lex_action(
    source: &str,
    mut at: usize,
    tokens: &mut Vec<Token>,
) -> Result<(usize, bool), (usize, String)> {
    let mut depth = 0usize;
    loop {
        let rest = &source[at..];
        let Some(c) = rest.chars().next() else {
            return Err((at, "unclosed action".to_owned()));
        };
        let closes = |depth: usize| {
            if depth > 0 {
                Err((at, "unclosed left paren".to_owned()))
            } else {
                Ok(())
            }
        };
        if rest.starts_with("}}") {
            closes(depth)?;
            push(tokens, Kind::Close, at, at + 2);
            return Ok((at + 2, false));
        }
        let spaces = rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
        if spaces > 0 {
            if rest[spaces..].starts_with("-}}") {
                closes(depth)?;
                push(tokens, Kind::Close, at + spaces, at + spaces + 3);
                return Ok((at + spaces + 3, true));
            }
            push(tokens, Kind::Space, at, at + spaces);
            at += spaces;
            continue;
        }
        let simple = |kind: Kind, length: usize| (kind, at + length);
        let next_is_digit = rest[c.len_utf8()..].starts_with(|c: char| c.is_ascii_digit());
        let (kind, end) = match c {
            '|' => simple(Kind::Pipe, 1),
            ',' => simple(Kind::Comma, 1),
            '(' => {
                depth += 1;
                simple(Kind::Left, 1)
            }
            ')' => {
                depth = depth
                    .checked_sub(1)
                    .ok_or((at, "unexpected right paren".to_owned()))?;
                simple(Kind::Right, 1)
            }
            ':' if rest.starts_with(":=") => simple(Kind::Declare, 2),
            ':' => return Err((at, "expected :=".to_owned())),
            '=' => simple(Kind::Assign, 1),
            '"' => quoted(source, at)?,
            '`' => {
                let length = rest[1..]
                    .find('`')
                    .ok_or((at, "unterminated raw quoted string".to_owned()))?;
                (
                    Kind::Quoted(rest[1..1 + length].to_owned()),
                    at + length + 2,
                )
            }
            '\'' => {
                let length = rest[1..]
                    .find('\'')
                    .ok_or((at, "unterminated character constant".to_owned()))?;
                let text = unescape(&rest[1..1 + length]);
                (
                    Kind::Number(text.chars().next().map_or(0, |c| c as u32).to_string()),
                    at + length + 2,
                )
            }
            '$' => {
                let end = word_end(source, at + 1);
                (Kind::Variable(source[at..end].to_owned()), end)
            }
            '.' if !next_is_digit => {
                let end = word_end(source, at + 1);
                if end == at + 1 {
                    simple(Kind::Dot, 1)
                } else {
                    (Kind::Field(source[at + 1..end].to_owned()), end)
                }
            }
            c if c.is_ascii_digit() || c == '.' || ((c == '-' || c == '+') && next_is_digit) => {
                let end = rest[1..]
                    .find(|c: char| !(c.is_alphanumeric() || c == '.' || c == '_'))
                    .map_or(source.len(), |offset| at + 1 + offset);
                (Kind::Number(source[at..end].to_owned()), end)
            }
            c if c.is_alphanumeric() || c == '_' => {
                let end = word_end(source, at);
                (Kind::Word(source[at..end].to_owned()), end)
            }
            c => {
                return Err((
                    at,
                    format!("unrecognized character in action: U+{:04X} '{c}'", c as u32),
                ));
            }
        };
        if matches!(kind, Kind::Field(_) | Kind::Word(_) | Kind::Variable(_))
            && let Some(next) = source[end..].chars().next()
            && !source[end..].starts_with("}}")
            && !(next.is_whitespace() || ".,|:()".contains(next))
        {
            return Err((at, format!("bad character U+{:04X} '{next}'", next as u32)));
        }
        push(tokens, kind, at, end);
        at = end;
    }
}

fn quoted(source: &str, at: usize) -> Result<(Kind, usize), (usize, String)> {
    let mut escaped = false;
    for (offset, c) in source[at + 1..].char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => {
                return Ok((
                    Kind::Quoted(unescape(&source[at + 1..at + 1 + offset])),
                    at + offset + 2,
                ));
            }
            '\n' => break,
            _ => {}
        }
    }
    Err((at, "unterminated quoted string".to_owned()))
}

fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some('x') => out.push(hex_char(&mut chars, 2)),
            Some('u') => out.push(hex_char(&mut chars, 4)),
            Some('U') => out.push(hex_char(&mut chars, 8)),
            Some(other) => out.push(other),
            None => {}
        }
    }
    out
}

fn hex_char(chars: &mut std::str::Chars<'_>, digits: usize) -> char {
    let code: String = chars.by_ref().take(digits).collect();
    u32::from_str_radix(&code, 16)
        .ok()
        .and_then(char::from_u32)
        .unwrap_or('\u{fffd}')
}

struct Parser<'a> {
    source: &'a str,
    tokens: Vec<Token>,
    at: usize,
    variables: Vec<String>,
    loops: usize,
}

enum Stop {
    End,
    Else { at: usize },
    Finish { at: usize },
}

impl Parser<'_> {
    fn peek(&self) -> &Token {
        &self.tokens[self.at]
    }

    fn next(&mut self) -> Token {
        let token = self.tokens[self.at].clone();
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        token
    }

    fn skip_space(&mut self) {
        while self.peek().kind == Kind::Space {
            self.at += 1;
        }
    }

    fn error<T>(&self, message: &str) -> Result<T, String> {
        Err(located(self.source, self.peek().start, message))
    }

    fn list(&mut self) -> Result<(Vec<Node>, Stop), String> {
        let mut nodes = Vec::new();
        loop {
            let token = self.next();
            match token.kind {
                Kind::End => return Ok((nodes, Stop::End)),
                Kind::Text(text) => nodes.push(Node::Text(text)),
                Kind::Open => {
                    self.skip_space();
                    let word = match &self.peek().kind {
                        Kind::Word(word) => word.clone(),
                        _ => String::new(),
                    };
                    let at = self.peek().start;
                    match word.as_str() {
                        "end" => {
                            self.next();
                            self.close("end")?;
                            return Ok((nodes, Stop::Finish { at }));
                        }
                        "else" => {
                            self.next();
                            return Ok((nodes, Stop::Else { at }));
                        }
                        "if" | "with" | "range" => {
                            self.next();
                            nodes.push(self.control(&word)?);
                        }
                        "break" | "continue" => {
                            self.next();
                            if self.loops == 0 {
                                return self
                                    .error(&format!("{{{{{word}}}}} outside {{{{range}}}}"));
                            }
                            self.close(&word)?;
                            nodes.push(if word == "break" {
                                Node::Break
                            } else {
                                Node::Continue
                            });
                        }
                        "define" | "template" | "block" => {
                            return self
                                .error(&format!("{{{{{word}}}}} is not supported in a format"));
                        }
                        _ => {
                            let pipe = self.pipe("command", Kind::Close)?;
                            nodes.push(Node::Action(pipe));
                        }
                    }
                }
                other => return self.error(&format!("unexpected {}", shown(&other))),
            }
        }
    }

    fn close(&mut self, context: &str) -> Result<(), String> {
        self.skip_space();
        match self.next().kind {
            Kind::Close => Ok(()),
            other => self.error(&format!("unexpected {} in {context}", shown(&other))),
        }
    }

    fn control(&mut self, word: &str) -> Result<Node, String> {
        let scope = self.variables.len();
        if word == "range" {
            self.loops += 1;
        }
        let pipe = self.pipe(word, Kind::Close)?;
        let (then, stop) = self.list()?;
        if word == "range" {
            self.loops -= 1;
        }
        let otherwise = match stop {
            Stop::End => return self.error("unexpected EOF"),
            Stop::Finish { .. } => Vec::new(),
            Stop::Else { .. } => self.otherwise(word)?,
        };
        self.variables.truncate(scope);
        Ok(match word {
            "if" => Node::If {
                pipe,
                then,
                otherwise,
            },
            "with" => Node::With {
                pipe,
                then,
                otherwise,
            },
            _ => Node::Range {
                pipe,
                then,
                otherwise,
            },
        })
    }

    fn otherwise(&mut self, word: &str) -> Result<Vec<Node>, String> {
        self.skip_space();
        if let Kind::Word(next) = &self.peek().kind
            && next == word
            && word != "range"
        {
            let word = word.to_owned();
            self.next();
            // `else if` is an `if` inside the else, ended by the same `end`.
            return Ok(vec![self.control(&word)?]);
        }
        self.close("else")?;
        let (nodes, stop) = self.list()?;
        match stop {
            Stop::Finish { .. } => Ok(nodes),
            Stop::Else { .. } => self.error("expected end; found {{else}}"),
            Stop::End => self.error("unexpected EOF"),
        }
    }

    fn pipe(&mut self, context: &str, end: Kind) -> Result<Pipe, String> {
        let mut pipe = Pipe {
            variables: Vec::new(),
            declares: false,
            commands: Vec::new(),
        };
        self.skip_space();
        let saved = self.at;
        if let Kind::Variable(name) = self.peek().kind.clone() {
            let mut names = vec![name];
            self.next();
            self.skip_space();
            if context == "range" && self.peek().kind == Kind::Comma {
                self.next();
                self.skip_space();
                if let Kind::Variable(name) = self.peek().kind.clone() {
                    names.push(name);
                    self.next();
                    self.skip_space();
                }
            }
            match self.peek().kind {
                Kind::Declare => {
                    self.next();
                    self.variables.extend(names.iter().cloned());
                    pipe.variables = names;
                    pipe.declares = true;
                }
                Kind::Assign => {
                    self.next();
                    pipe.variables = names;
                }
                _ => self.at = saved,
            }
        }
        loop {
            self.skip_space();
            if self.peek().kind == end {
                self.next();
                if pipe.commands.is_empty() {
                    return self.error(&format!("missing value for {context}"));
                }
                return Ok(pipe);
            }
            let command = self.command(context)?;
            pipe.commands.push(command);
        }
    }

    fn command(&mut self, context: &str) -> Result<Command, String> {
        self.skip_space();
        let start = self.peek().start;
        let mut command = Command {
            arguments: Vec::new(),
            start,
            end: start,
        };
        loop {
            self.skip_space();
            match &self.peek().kind {
                Kind::Pipe => {
                    self.next();
                    self.skip_space();
                    if matches!(self.peek().kind, Kind::Close | Kind::Right | Kind::Pipe)
                        || command.arguments.is_empty()
                    {
                        return self.error(&format!("missing value for {context}"));
                    }
                    return Ok(command);
                }
                Kind::Close | Kind::Right => {
                    if command.arguments.is_empty() {
                        return self.error("empty command");
                    }
                    return Ok(command);
                }
                _ => {
                    let operand = self.operand()?;
                    command.end = operand.end;
                    command.arguments.push(operand);
                }
            }
        }
    }

    fn operand(&mut self) -> Result<Operand, String> {
        let token = self.next();
        let (start, mut end) = (token.start, token.end);
        let mut fields = Vec::new();
        let term = match token.kind {
            Kind::Dot => Term::Dot,
            Kind::Field(name) => {
                fields.push(name);
                Term::Dot
            }
            Kind::Variable(name) => {
                if !self.variables.contains(&name) {
                    return Err(located(
                        self.source,
                        start,
                        &format!("undefined variable {}", quote(&name)),
                    ));
                }
                Term::Variable(name)
            }
            Kind::Quoted(text) => Term::Text(text),
            Kind::Number(text) => number(&text).ok_or_else(|| {
                located(
                    self.source,
                    start,
                    &format!("bad number syntax: {}", quote(&text)),
                )
            })?,
            Kind::Word(word) => match word.as_str() {
                "true" => Term::Bool(true),
                "false" => Term::Bool(false),
                "nil" => Term::Nil,
                _ if FUNCTIONS.contains(&word.as_str()) => Term::Function(word),
                _ => {
                    return Err(located(
                        self.source,
                        start,
                        &format!("function {} not defined", quote(&word)),
                    ));
                }
            },
            Kind::Left => {
                let pipe = self.pipe("parenthesized pipeline", Kind::Right)?;
                end = self.tokens[self.at - 1].end;
                Term::Pipe(pipe)
            }
            other => {
                return Err(located(
                    self.source,
                    start,
                    &format!("unexpected {} in operand", shown(&other)),
                ));
            }
        };
        let mut at = start;
        let mut first = true;
        while let Kind::Field(name) = self.peek().kind.clone() {
            if first {
                // Go names the position of the second part of a chain.
                at = self.peek().start;
                first = false;
            }
            end = self.peek().end;
            fields.push(name);
            self.next();
        }
        Ok(Operand {
            term,
            fields,
            at,
            start,
            end,
        })
    }
}

fn number(text: &str) -> Option<Term> {
    if let Ok(integer) = crate::grammar::values::parse_integer(&text.replace('_', "")) {
        return Some(Term::Integer(integer));
    }
    text.parse().ok().map(Term::Float)
}

fn shown(kind: &Kind) -> String {
    match kind {
        Kind::Text(text) | Kind::Word(text) | Kind::Number(text) | Kind::Variable(text) => {
            format!("<{text}>")
        }
        Kind::Field(name) => format!("<.{name}>"),
        Kind::Quoted(text) => quote(text),
        Kind::Open => "\"{{\"".to_owned(),
        Kind::Close => "\"}}\"".to_owned(),
        Kind::Dot => "<.>".to_owned(),
        Kind::Pipe => "\"|\"".to_owned(),
        Kind::Comma => "\",\"".to_owned(),
        Kind::Declare => "\":=\"".to_owned(),
        Kind::Assign => "\"=\"".to_owned(),
        Kind::Left => "\"(\"".to_owned(),
        Kind::Right => "\")\"".to_owned(),
        Kind::Space => "\" \"".to_owned(),
        Kind::End => "EOF".to_owned(),
    }
}
