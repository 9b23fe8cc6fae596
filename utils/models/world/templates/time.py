"""Sentences about time: years of a century, days of the week, months."""

# Years: the second year is later than the first, in the same century.
YEAR_TEMPLATES = (
    "the {event} {lasted} from the year {C} {Y} to the year {C} | {Z} .",
    "the {event} {lasted} from {C} {Y} to {C} | {Z} .",
    "the {event} began in {C} {Y} and ended in {C} | {Z} .",
    "from {C} {Y} until {C} | {Z} the {event} {lasted} .",
    "between {C} {Y} and {C} | {Z} the {event} {lasted} .",
    "the {event} of {C} {Y} was over by {C} | {Z} .",
    "the {event} started in {C} {Y} and stopped in {C} | {Z} .",
    "after the {event} of {C} {Y} came the {other} of {C} | {Z} .",
    "born in {C} {Y} , the {profession} died in {C} | {Z} .",
    "the {place} was built in {C} {Y} and closed in {C} | {Z} .",
    "the {event} went from {C} {Y} through {C} | {Z} .",
    "no {event} was longer than that from {C} {Y} to {C} | {Z} .",
)

# Cycles: {next} comes after {now}, and {now} before {next}.
NEXT_TEMPLATES = {
    "weekday": (
        "the day after {now} is | {next} .",
        "it was {now} , and the next day was | {next} .",
        "the {event} began on {now} and ended a day later , on | {next} .",
        "{N} left on {now} and came back the next day , on | {next} .",
        "if today is {now} , tomorrow is | {next} .",
        "from {now} to | {next} {N} was at the {place} .",
        "{N} lost the {object} on {now} and found it on | {next} .",
        "the {place} was closed on {now} but open again on | {next} .",
    ),
    "month": (
        "the month after {now} is | {next} .",
        "{now} passed , and then came | {next} .",
        "the {event} began in {now} and ended a month later , in | {next} .",
        "{N} left in {now} and came back the next month , in | {next} .",
        "from {now} to | {next} {N} was at the {place} .",
        "the {place} was closed in {now} but open again in | {next} .",
    ),
}
BEFORE_TEMPLATES = {
    "weekday": (
        "the day before {next} is | {now} .",
        "it was {next} , and the day before was | {now} .",
        "if today is {next} , yesterday was | {now} .",
    ),
    "month": (
        "the month before {next} is | {now} .",
        "it was {next} , and the month before was | {now} .",
    ),
}
ORDINAL_TEMPLATES = (
    "the {ordinal} day of the week is | {day} .",
    "the {ordinal} month of the year is | {month} .",
)
