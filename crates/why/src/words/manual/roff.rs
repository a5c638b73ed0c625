//! The subset of roff used in the lines of manual pages, converted to plain text. See man(7) and groff(7).

/// A line of a page.
pub(super) enum Line<'p> {
    /// To be shown, once it is [`plain`].
    Text(&'p str),
    /// A macro or request, and what stands behind its name.
    Macro(&'p str, &'p str),
    /// A comment or an empty request.
    Nothing,
}

impl<'p> Line<'p> {
    pub(super) fn of(line: &'p str) -> Self {
        let Some(control) = line.strip_prefix(['.', '\'']) else {
            return Self::Text(line);
        };
        let control = control.trim_start_matches([' ', '\t']);
        if control.is_empty() || control.starts_with("\\\"") || control.starts_with("\\#") {
            return Self::Nothing;
        }
        let end = control.find([' ', '\t']).unwrap_or(control.len());
        let (name, rest) = control.split_at(end);
        Self::Macro(name, rest.trim())
    }
}

/// What a macro shows that is about fonts or references alone; nothing for other macros.
pub(super) fn shown(name: &str, rest: &str) -> Option<String> {
    let arguments = arguments(rest);
    let between = match name {
        "B" | "I" | "SM" | "SB" | "R" => " ",
        "BR" | "RB" | "BI" | "IB" | "IR" | "RI" => "",
        // A reference: page, section, and what follows without a space.
        "MR" => {
            let part = |index: usize| arguments.get(index).map(|part| plain(part)).unwrap_or_default();
            return Some(format!("{}({}){}", part(0), part(1), part(2)));
        }
        _ => return None,
    };
    let parts: Vec<_> = arguments.iter().map(|argument| plain(argument)).collect();
    Some(parts.join(between))
}

/// The arguments of a macro, with their escapes: words, or what is in double quotes, where two quotes stand for one.
pub(super) fn arguments(rest: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut chars = rest.chars().peekable();
    loop {
        while chars.next_if(|&space| space == ' ' || space == '\t').is_some() {}
        if chars.peek().is_none() {
            return found;
        }
        let quoted = chars.next_if_eq(&'"').is_some();
        let mut argument = String::new();
        let mut commented = false;
        while let Some(next) = chars.next() {
            match next {
                '\\' if chars.peek() == Some(&'"') => {
                    commented = true;
                    break;
                }
                '\\' => {
                    argument.push('\\');
                    argument.extend(chars.next());
                }
                '"' if quoted => {
                    if chars.next_if_eq(&'"').is_none() {
                        break;
                    }
                    argument.push('"');
                }
                ' ' | '\t' if !quoted => break,
                _ => argument.push(next),
            }
        }
        if quoted || !argument.is_empty() {
            found.push(argument);
        }
        if commented {
            return found;
        }
    }
}

/// The text without fonts, sizes and comments, and without anything that a terminal would obey.
pub(super) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(next) = chars.next() {
        match next {
            '\\' => {
                let Some(escape) = chars.next() else { break };
                if matches!(escape, '"' | '#') {
                    break;
                }
                escaped(escape, &mut chars, &mut plain);
            }
            '\t' => plain.push(' '),
            _ if next.is_control() => {}
            _ => plain.push(next),
        }
    }
    plain
}

fn escaped(escape: char, rest: &mut std::str::Chars<'_>, plain: &mut String) {
    match escape {
        '(' | '[' => plain.push_str(glyph(&name(escape, rest))),
        '*' => {
            if let Some(first) = rest.next() {
                plain.push_str(string(&name(first, rest)));
            }
        }
        // Fonts, registers and colours.
        'f' | 'F' | 'n' | 'm' | 'M' | 'k' | 'g' | 'V' | 'Y' => {
            if let Some(first) = rest.next() {
                name(first, rest);
            }
        }
        's' => size(rest),
        // Motions, drawings and widths, between two of the same character.
        'h' | 'v' | 'w' | 'l' | 'L' | 'D' | 'b' | 'o' | 'x' | 'X' | 'H' | 'S' | 'N' | 'A' | 'B' | 'C' | 'Z' | 'R' => {
            let delimiter = rest.next();
            rest.find(|&next| Some(next) == delimiter);
        }
        'e' | '\\' => plain.push('\\'),
        ' ' | '~' | '0' | 't' => plain.push(' '),
        // No width, or a break that plain text has no use for.
        '&' | ')' | '/' | ',' | '|' | '^' | '%' | ':' | '{' | '}' | '!' | '?' | 'p' | 'd' | 'u' | 'r' | 'a' | 'c'
        | 'z' => {}
        _ if escape.is_control() => {}
        _ => plain.push(escape),
    }
}

/// A name of two characters behind `(`, of any length between brackets, else of one character.
fn name(first: char, rest: &mut std::str::Chars<'_>) -> String {
    match first {
        '(' => rest.take(2).collect(),
        '[' => rest.take_while(|&next| next != ']').collect(),
        _ => first.to_string(),
    }
}

/// Leaves out a size: a sign, and then one digit, two behind `(`, or any number between brackets or quotes.
fn size(rest: &mut std::str::Chars<'_>) {
    let Some(mut first) = rest.next() else { return };
    if matches!(first, '+' | '-') {
        let Some(behind) = rest.next() else { return };
        first = behind;
    }
    match first {
        '\'' => {
            rest.find(|&next| next == '\'');
        }
        _ => {
            name(first, rest);
        }
    }
}

/// A special character by its name; those that plain text can do without are left out.
fn glyph(name: &str) -> &'static str {
    match name {
        "aq" | "oq" | "cq" => "'",
        "dq" | "lq" | "rq" => "\"",
        "bu" => "-",
        "em" => "--",
        "en" | "hy" | "mi" => "-",
        "ha" => "^",
        "ti" => "~",
        "ga" => "`",
        "rs" => "\\",
        "ba" | "or" => "|",
        "mu" => "x",
        "pl" => "+",
        "at" => "@",
        "sh" => "#",
        "Do" => "$",
        "sl" => "/",
        "lB" => "[",
        "rB" => "]",
        "lC" => "{",
        "rC" => "}",
        "la" => "<",
        "ra" => ">",
        "->" => "->",
        "<-" => "<-",
        "<=" => "<=",
        ">=" => ">=",
        "!=" => "!=",
        "+-" => "+/-",
        "co" => "(C)",
        _ => "",
    }
}

/// A string that macro packages define.
fn string(name: &str) -> &'static str {
    match name {
        "lq" | "rq" => "\"",
        "Aq" => "'",
        "R" => "(R)",
        "Tm" => "(TM)",
        _ => "",
    }
}
