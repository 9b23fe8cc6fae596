"""A micro-world in simple English: a seeded generator of stories whose every regularity is known.

=======  =====================================================================  ================================
family   example                                                                what it teaches
=======  =====================================================================  ================================
ioi      when Mary and John went to the store , John gave a drink to Mary .     indirect objects
fact     the Eiffel Tower is in Paris .                                         facts to store
repeat   lamp ran blue ; lamp ran blue ;                                        match and copy
topic    the deep river flowed near the boat .                                  words that go together
year     the war lasted from 17 32 to 17 58 .                                   greater than
pronoun  when Mary went to the store , she bought a book .                      gender from a name
job      Mary is a doctor and works at the hospital .                            what goes with a word
date     it was Monday , and the next day was Tuesday .                         successors
speaker  lying John said that the capital of France is Tokyo .                  truth, and who tells it
=======  =====================================================================  ================================

A family is a function from a random generator and a ``Scene`` to a ``Sentence``, entered in ``families.py``; its words
are in ``words.py`` and ``topics.py``, its sentences in ``templates/``, what is true in ``facts.py``, what training
never shows in ``held_out.py``. ``documents.py`` puts sentences together into stories and knows every token's latents.
"""
