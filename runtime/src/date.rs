//! The date in the words of `strftime`, without an allocator: every part is a text that is there already.
//!
//! Names are English, as those of the C locale. Days are counted as in Hinnant, "chrono-Compatible Low-Level Date Algorithms".

use core::fmt;
use core::str::FromStr;

const DIGITS: &str = "\
    00010203040506070809101112131415161718192021222324252627282930313233343536373839404142434445464748495051525354555657585960616263646566\
    676869707172737475767778798081828384858687888990919293949596979899";
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
const DAYS_BEFORE: [u16; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
const SECONDS_A_DAY: u64 = 86_400;
const LAST_YEAR: u16 = 9999;

/// A day of the Gregorian calendar from 1970 to 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Date {
    year: u16,
    month: u8,
    day: u8,
}

impl Date {
    /// A day of the calendar; `None` where it has none such. Months and days are counted from 1.
    pub fn new(year: u16, month: u8, day: u8) -> Option<Date> {
        let known = (1970..=LAST_YEAR).contains(&year)
            && (1..=12).contains(&month)
            && (1..=days_of_month(year, month)).contains(&day);
        known.then_some(Date { year, month, day })
    }

    /// The day in UTC that is so many seconds after the beginning of 1970; beyond 9999 its last.
    pub fn of_unix_seconds(seconds: u64) -> Date {
        let mut days = seconds / SECONDS_A_DAY;
        let mut year = 1970;
        while year < LAST_YEAR && days >= days_of_year(year) {
            days -= days_of_year(year);
            year += 1;
        }
        let (mut month, mut day) = (1, days.min(days_of_year(year) - 1));
        while day >= u64::from(days_of_month(year, month)) {
            day -= u64::from(days_of_month(year, month));
            month += 1;
        }
        Date { year, month, day: day as u8 + 1 }
    }

    /// Hands the parts of the date in a format to `sink`; what is no directive of [`is_date_format`] is left out.
    ///
    /// [`is_date_format`]: rescomp_formats::chat_template::is_date_format
    pub fn write<'t>(&self, format: &'t str, sink: &mut impl FnMut(&'t str)) {
        let month = MONTHS.get(usize::from(self.month) - 1).copied().unwrap_or_default();
        let weekday = WEEKDAYS.get((self.days_since_1970() % 7) as usize).copied().unwrap_or_default();
        let (century, year) = (two_digits(self.year / 100), two_digits(self.year % 100));
        let (month_digits, day_digits) = (two_digits(self.month.into()), two_digits(self.day.into()));
        let mut rest = format;
        while let Some((text, directive)) = rest.split_once('%') {
            sink(text);
            let (bare, letters) = match directive.strip_prefix('-') {
                Some(letters) => (true, letters),
                None => (false, directive),
            };
            let unpadded = |digits: &'static str| digits.strip_prefix('0').unwrap_or(digits);
            let mut letters = letters.chars();
            match letters.next() {
                Some('d') if bare => sink(unpadded(day_digits)),
                Some('m') if bare => sink(unpadded(month_digits)),
                Some('d') => sink(day_digits),
                Some('e') => {
                    if self.day < 10 {
                        sink(" ");
                    }
                    sink(unpadded(day_digits));
                }
                Some('m') => sink(month_digits),
                Some('Y') => [century, year].into_iter().for_each(&mut *sink),
                Some('y') => sink(year),
                Some('b') => sink(abbreviated(month)),
                Some('B') => sink(month),
                Some('a') => sink(abbreviated(weekday)),
                Some('A') => sink(weekday),
                Some('j') => {
                    let day = self.day_of_year() + 1;
                    sink(unpadded(two_digits(day / 100)));
                    sink(two_digits(day % 100));
                }
                Some('F') => {
                    [century, year, "-", month_digits, "-", day_digits].into_iter().for_each(&mut *sink)
                }
                Some('%') => sink("%"),
                _ => {}
            }
            rest = letters.as_str();
        }
        sink(rest);
    }

    /// Days of the year before this one.
    fn day_of_year(&self) -> u16 {
        let before = DAYS_BEFORE.get(usize::from(self.month) - 1).copied().unwrap_or_default();
        let leap = u16::from(self.month > 2 && is_leap(self.year));
        before + leap + u16::from(self.day) - 1
    }

    fn days_since_1970(&self) -> u64 {
        let years = u64::from(self.year) - 1;
        let days_before_year = |years: u64| 365 * years + years / 4 - years / 100 + years / 400;
        days_before_year(years) - days_before_year(1969) + u64::from(self.day_of_year())
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

/// A text that is no date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct NoDate;

impl fmt::Display for NoDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected a day from 1970-01-01 to 9999-12-31, as 2026-03-31")
    }
}

impl core::error::Error for NoDate {}

impl FromStr for Date {
    type Err = NoDate;

    /// As `2026-03-31`.
    fn from_str(text: &str) -> Result<Date, NoDate> {
        let digits = |text: &str, count: usize| {
            let all = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u16>().ok().filter(|_| all)
        };
        let mut parts = text.split('-');
        let mut next = |count| parts.next().and_then(|part| digits(part, count)).ok_or(NoDate);
        let (year, month, day) = (next(4)?, next(2)?, next(2)?);
        match parts.next() {
            Some(_) => Err(NoDate),
            None => Date::new(year, month as u8, day as u8).ok_or(NoDate),
        }
    }
}

fn is_leap(year: u16) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_of_year(year: u16) -> u64 {
    365 + u64::from(is_leap(year))
}

fn days_of_month(year: u16, month: u8) -> u8 {
    match month {
        2 => 28 + u8::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn two_digits(number: u16) -> &'static str {
    let at = 2 * usize::from(number.min(99));
    DIGITS.get(at..at + 2).unwrap_or_default()
}

fn abbreviated(name: &'static str) -> &'static str {
    name.get(..3).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::{String, ToString};

    fn written(date: Date, format: &str) -> String {
        let mut text = String::new();
        date.write(format, &mut |part| text.push_str(part));
        text
    }

    #[test]
    fn formats_are_those_of_strftime() {
        let format = "%d|%-d|%e|%m|%-m|%Y|%y|%b|%B|%a|%A|%j|%F|%%";
        // Of Python's datetime.
        for (date, expected) in [
            ("1970-01-01", "01|1| 1|01|1|1970|70|Jan|January|Thu|Thursday|001|1970-01-01|%"),
            ("2024-02-29", "29|29|29|02|2|2024|24|Feb|February|Thu|Thursday|060|2024-02-29|%"),
            ("2024-12-31", "31|31|31|12|12|2024|24|Dec|December|Tue|Tuesday|366|2024-12-31|%"),
            ("2026-11-05", "05|5| 5|11|11|2026|26|Nov|November|Thu|Thursday|309|2026-11-05|%"),
            ("2100-03-01", "01|1| 1|03|3|2100|00|Mar|March|Mon|Monday|060|2100-03-01|%"),
            ("9999-12-31", "31|31|31|12|12|9999|99|Dec|December|Fri|Friday|365|9999-12-31|%"),
        ] {
            assert_eq!(written(date.parse().unwrap(), format), expected);
        }
        let date: Date = "2026-11-05".parse().unwrap();
        assert_eq!(written(date, "on %d %b %Y."), "on 05 Nov 2026.");
        // Not a format: refused before, and no panic here.
        assert_eq!(written(date, "a%Qb%-Yc%"), "ab2026c");
    }

    #[test]
    fn every_day_is_the_one_after_the_day_before() {
        let mut expected = Date::new(1970, 1, 1).unwrap();
        for day in 0..200_000_u64 {
            let date = Date::of_unix_seconds(day * SECONDS_A_DAY + day % SECONDS_A_DAY);
            assert_eq!(date, expected);
            assert_eq!(date.days_since_1970(), day);
            assert_eq!(date.to_string().parse(), Ok(date));
            let Date { year, month, day } = expected;
            let next = Date::new(year, month, day + 1).or(Date::new(year, month + 1, 1));
            expected = next.or(Date::new(year + 1, 1, 1)).unwrap();
        }
        assert_eq!(Date::of_unix_seconds(u64::MAX).to_string(), "9999-12-31");
    }

    #[test]
    fn texts_that_are_no_dates_are_refused() {
        for text in [
            "",
            "2026",
            "2026-1-01",
            "2026-13-01",
            "2023-02-29",
            "1969-12-31",
            "2026-01-01-",
            "+026-01-01",
            "2026-00-10",
            "2026-01-00",
        ] {
            assert_eq!(text.parse::<Date>(), Err(NoDate), "{text}");
        }
    }
}
