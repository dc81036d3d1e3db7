%% Load the modules of RabbitMQ and of its dependencies, each from the directory of its application. Evaluated before RabbitMQ
%% boots (`erl -run file eval`).
%%
%% At boot RabbitMQ reads the attributes of every module. The code server would search up to a hundred directories for each:
%% some 50,000 failed opens, and twice the CPU time of the whole start. The helper that RabbitMQ starts to find epmd reads this
%% file too, but does not need the modules. It is the only one with a name (`-sname`).
Visit = fun Visit([], _) -> ok;
            Visit([App | Rest], Seen) ->
                case lists:member(App, Seen) orelse code:where_is_file(atom_to_list(App) ++ ".app") of
                    true -> Visit(Rest, Seen);
                    non_existing -> Visit(Rest, Seen);
                    File ->
                        {ok, [{application, App, Keys}]} = file:consult(File),
                        [code:load_abs(filename:join(filename:dirname(File), Module))
                         || Module <- proplists:get_value(modules, Keys, []), not erlang:module_loaded(Module)],
                        Visit(proplists:get_value(applications, Keys, []) ++ Rest, [App | Seen])
                end
        end,
[Visit([rabbit], [kernel, stdlib]) || init:get_argument(sname) =:= error].
