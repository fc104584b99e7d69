//! Executes the nodes of a template.

use super::parse::{Command, Node, Operand, Pipe, Term};
use super::{Value, functions, printed};
use std::rc::Rc;

struct Machine<'a> {
    source: &'a str,
    out: String,
    variables: Vec<(String, Value)>,
    header: bool,
}

enum Flow {
    Next,
    Break,
    Continue,
}

/// An error and the piece of source it is about.
pub(super) struct Fault {
    pub at: usize,
    pub start: usize,
    pub end: usize,
    pub message: String,
}

pub(super) fn execute(
    source: &str,
    nodes: &[Node],
    dot: &Value,
    header: bool,
) -> Result<String, String> {
    let mut machine = Machine {
        source,
        out: String::new(),
        variables: vec![("$".to_owned(), dot.clone())],
        header,
    };
    machine.walk(nodes, dot).map_err(|fault| {
        let before = &source[..fault.at];
        let line = 1 + before.matches('\n').count();
        let column = before
            .rfind('\n')
            .map_or(fault.at, |newline| fault.at - newline - 1);
        let context = &source[fault.start..fault.end];
        let context = match context.char_indices().nth(20) {
            Some((end, _)) => format!("{}...", &context[..end]),
            None => context.to_owned(),
        };
        format!(
            "template: :{line}:{column}: executing \"\" at <{context}>: {}",
            fault.message
        )
    })?;
    Ok(machine.out)
}

impl Machine<'_> {
    fn walk(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, Fault> {
        for node in nodes {
            match node {
                Node::Text(text) => self.out.push_str(text),
                Node::Action(pipe) => {
                    let value = self.pipe(pipe, dot)?;
                    if pipe.variables.is_empty() {
                        self.out.push_str(&printed(&value));
                    }
                }
                Node::If {
                    pipe,
                    then,
                    otherwise,
                } => {
                    let scope = self.variables.len();
                    let value = self.pipe(pipe, dot)?;
                    let flow = self.walk(
                        if functions::truth(&value) {
                            then
                        } else {
                            otherwise
                        },
                        dot,
                    )?;
                    self.variables.truncate(scope);
                    if !matches!(flow, Flow::Next) {
                        return Ok(flow);
                    }
                }
                Node::With {
                    pipe,
                    then,
                    otherwise,
                } => {
                    let scope = self.variables.len();
                    let value = self.pipe(pipe, dot)?;
                    let flow = if functions::truth(&value) {
                        self.walk(then, &value)?
                    } else {
                        self.walk(otherwise, dot)?
                    };
                    self.variables.truncate(scope);
                    if !matches!(flow, Flow::Next) {
                        return Ok(flow);
                    }
                }
                Node::Range {
                    pipe,
                    then,
                    otherwise,
                } => self.range(pipe, then, otherwise, dot)?,
                Node::Break => return Ok(Flow::Break),
                Node::Continue => return Ok(Flow::Continue),
            }
        }
        Ok(Flow::Next)
    }

    fn range(
        &mut self,
        pipe: &Pipe,
        then: &[Node],
        otherwise: &[Node],
        dot: &Value,
    ) -> Result<(), Fault> {
        let scope = self.variables.len();
        let value = self.commands(pipe, dot)?;
        let items: Vec<(Value, Value)> = match &value {
            Value::List(list) => list
                .iter()
                .enumerate()
                .map(|(index, value)| (Value::Integer(index as i64), value.clone()))
                .collect(),
            Value::Map(entries) => entries
                .pairs
                .iter()
                .map(|(key, value)| (Value::text(key), value.clone()))
                .collect(),
            Value::Integer(count) => (0..*count)
                .map(|n| (Value::Integer(n), Value::Integer(n)))
                .collect(),
            Value::Nil | Value::Absent => Vec::new(),
            other => {
                let command = &pipe.commands[0];
                return Err(Fault {
                    at: command.start,
                    start: command.start,
                    end: command.end,
                    message: format!("range can't iterate over {}", printed(other)),
                });
            }
        };
        if items.is_empty() {
            self.walk(otherwise, dot)?;
        }
        for (key, item) in items {
            self.variables.truncate(scope);
            match pipe.variables.as_slice() {
                [] => {}
                [one] => self.bind(pipe, one, item.clone()),
                [first, second, ..] => {
                    self.bind(pipe, first, key);
                    self.bind(pipe, second, item.clone());
                }
            }
            if matches!(self.walk(then, &item)?, Flow::Break) {
                break;
            }
        }
        self.variables.truncate(scope);
        Ok(())
    }

    fn bind(&mut self, pipe: &Pipe, name: &str, value: Value) {
        if !pipe.declares
            && let Some(variable) = self
                .variables
                .iter_mut()
                .rev()
                .find(|(known, _)| known == name)
        {
            variable.1 = value;
            return;
        }
        self.variables.push((name.to_owned(), value));
    }

    fn pipe(&mut self, pipe: &Pipe, dot: &Value) -> Result<Value, Fault> {
        let value = self.commands(pipe, dot)?;
        for name in &pipe.variables {
            self.bind(pipe, name, value.clone());
        }
        Ok(value)
    }

    fn commands(&mut self, pipe: &Pipe, dot: &Value) -> Result<Value, Fault> {
        let mut last = None;
        for command in &pipe.commands {
            last = Some(self.command(command, dot, last)?);
        }
        Ok(last.unwrap_or(Value::Absent))
    }

    fn command(
        &mut self,
        command: &Command,
        dot: &Value,
        last: Option<Value>,
    ) -> Result<Value, Fault> {
        let Some((first, rest)) = command.arguments.split_first() else {
            return Ok(Value::Absent);
        };
        let fault = |message: String| Fault {
            at: command.start,
            start: command.start,
            end: command.end,
            message,
        };
        if let Term::Function(name) = &first.term {
            if name == "and" || name == "or" {
                return self.short_circuit(name == "and", rest, dot, last);
            }
            let mut arguments = Vec::with_capacity(rest.len() + 1);
            for operand in rest {
                arguments.push(self.operand(operand, dot, &[])?);
            }
            arguments.extend(last);
            if self.header
                && let Some(heading) = functions::heading(name, &arguments)
            {
                return Ok(heading);
            }
            return functions::call(name, &arguments)
                .map_err(|message| fault(format!("error calling {name}: {message}")));
        }
        let mut arguments = Vec::with_capacity(rest.len() + 1);
        for operand in rest {
            arguments.push(self.operand(operand, dot, &[])?);
        }
        arguments.extend(last);
        if !arguments.is_empty() && first.fields.is_empty() {
            let text = &self.source[first.start..first.end];
            return Err(fault(format!("can't give argument to non-function {text}")));
        }
        self.operand(first, dot, &arguments)
    }

    fn short_circuit(
        &mut self,
        all: bool,
        operands: &[Operand],
        dot: &Value,
        last: Option<Value>,
    ) -> Result<Value, Fault> {
        let mut value = Value::Absent;
        for operand in operands {
            value = self.operand(operand, dot, &[])?;
            if functions::truth(&value) != all {
                return Ok(value);
            }
        }
        Ok(last.unwrap_or(value))
    }

    /// Evaluates an operand; the arguments go to the last of its fields, if it is a method.
    fn operand(
        &mut self,
        operand: &Operand,
        dot: &Value,
        arguments: &[Value],
    ) -> Result<Value, Fault> {
        let mut value = match &operand.term {
            Term::Dot => dot.clone(),
            Term::Nil => Value::Nil,
            Term::Bool(on) => Value::Bool(*on),
            Term::Integer(integer) => Value::Integer(*integer),
            Term::Float(float) => Value::Float(*float),
            Term::Text(text) => Value::text(text),
            Term::Variable(name) => self
                .variables
                .iter()
                .rev()
                .find(|(known, _)| known == name)
                .map_or(Value::Absent, |(_, value)| value.clone()),
            Term::Function(name) => functions::call(name, &[]).map_err(|message| Fault {
                at: operand.start,
                start: operand.start,
                end: operand.end,
                message: format!("error calling {name}: {message}"),
            })?,
            Term::Pipe(pipe) => self.pipe(pipe, dot)?,
        };
        for (index, name) in operand.fields.iter().enumerate() {
            let is_last = index + 1 == operand.fields.len();
            let given = if is_last { arguments } else { &[] };
            value = field(&value, name, given, self.header).map_err(|message| Fault {
                at: operand.at,
                start: operand.start,
                end: operand.end,
                message,
            })?;
        }
        Ok(value)
    }
}

fn field(value: &Value, name: &str, arguments: &[Value], header: bool) -> Result<Value, String> {
    let type_name = match value {
        Value::Object(object) => match object.call(name, arguments) {
            Some(result) => {
                return result.map_err(|message| format!("error calling {name}: {message}"));
            }
            None => object.type_name().to_owned(),
        },
        Value::Map(entries) => {
            if !arguments.is_empty() && !header {
                return Err(format!(
                    "{name} has arguments but cannot be invoked as function"
                ));
            }
            return match value.entry(name) {
                Some(found) => Ok(found.clone()),
                None if entries.strict => Err(format!("map has no entry for key \"{name}\"")),
                None => Ok(Value::Absent),
            };
        }
        Value::Struct(_) => match value.entry(name) {
            Some(_) if !arguments.is_empty() => {
                return Err(format!(
                    "{name} has arguments but cannot be invoked as function"
                ));
            }
            Some(found) => return Ok(found.clone()),
            None => "struct".to_owned(),
        },
        Value::Nil => return Err(format!("nil pointer evaluating interface {{}}.{name}")),
        Value::Absent => return Ok(Value::Absent),
        Value::Bool(_) => "bool".to_owned(),
        Value::Integer(_) => "int64".to_owned(),
        Value::Float(_) => "float64".to_owned(),
        Value::Text(_) => "string".to_owned(),
        Value::List(_) => "[]interface {}".to_owned(),
    };
    Err(format!("can't evaluate field {name} in type {type_name}"))
}

/// Shares a list's elements.
pub(super) fn elements(value: &Value) -> Option<Rc<Vec<Value>>> {
    match value {
        Value::List(list) => Some(list.clone()),
        _ => None,
    }
}
