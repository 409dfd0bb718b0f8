"""Studies: experiments whose figures say what the runtime's memory is worth."""
