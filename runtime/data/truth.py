class Truth: pass
def find_truth(c): return None
